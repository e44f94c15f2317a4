"use strict";
// Search and filters of the lists of disagreements. Without this the lists stand there whole.
for (const section of document.querySelectorAll(".cases")) {
  const list = section.querySelector(".list");
  const cases = Array.from(list.children, (node) => ({
    node,
    text: node.textContent.toLowerCase(),
    ranks: node.dataset.ranks.split(" ").map(Number),
    what: node.dataset.what.split(" "),
  }));
  const form = section.querySelector(".filter");
  const field = (name) => form.elements.namedItem(name).value;
  const update = () => {
    const words = field("words").toLowerCase().split(/\s+/).filter(Boolean);
    const [judge, what, truth] = [field("judge"), field("what"), field("truth")];
    const found = cases.filter(
      (each) =>
        words.every((word) => each.text.includes(word)) &&
        (judge === "" || each.ranks[Number(judge)] >= 0) &&
        (what === "" || (judge === "" ? each.what : [each.what[Number(judge)]]).some((of) => of.includes(what))) &&
        (truth === "" || each.node.dataset.truth === truth),
    );
    if (judge !== "") found.sort((a, b) => a.ranks[Number(judge)] - b.ranks[Number(judge)]);
    list.replaceChildren(...found.map((each) => each.node));
    form.querySelector("output").value = `${found.length} of ${cases.length}`;
  };
  form.hidden = false;
  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  update();
}
