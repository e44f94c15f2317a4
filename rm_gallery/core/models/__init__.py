"""Language models: weights from packages and folders, and the computations a judge needs of them."""
