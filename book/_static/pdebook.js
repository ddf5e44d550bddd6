"use strict";

// The widgets ask for mathematics by the interface of MathJax 2, the pages load MathJax 3.
const serveMathematics = () => {
  if (window.MathJax && !window.MathJax.Hub) {
    window.MathJax.Hub = {
      Queue: ([, , element]) => window.MathJax.startup?.promise.then(() => window.MathJax.typesetPromise([element])),
    };
  }
};

// The map of the chapters: the arrows of the box under the pointer, or in focus, stand out.
const lightMap = () => {
  for (const box of document.querySelectorAll(".pde-box")) {
    const slug = box.dataset.slug;
    const arrows = document.querySelectorAll(`.pde-arrows [data-from="${slug}"], .pde-arrows [data-to="${slug}"]`);
    const light = (on) => () => arrows.forEach((arrow) => arrow.classList.toggle("pde-lit", on));
    for (const event of ["pointerenter", "focus"]) box.addEventListener(event, light(true));
    for (const event of ["pointerleave", "blur"]) box.addEventListener(event, light(false));
  }
};

// A box that scrolls sideways can be reached and moved with the keyboard.
const addStops = () => {
  for (const box of document.querySelectorAll(".bd-article :is(div.math, pre, .cell_output, .cell_output div)")) {
    const scrolls = box.scrollWidth > box.clientWidth + 1 && getComputedStyle(box).overflowX !== "visible";
    if (scrolls && !box.hasAttribute("tabindex")) box.tabIndex = 0;
  }
};

// Paper can't be unfolded.
const setFolds = (open) => () => {
  for (const fold of document.querySelectorAll(open ? ".bd-article details:not([open])" : "details[data-printed]")) {
    fold.open = open;
    fold.toggleAttribute("data-printed", open);
  }
};

addEventListener("DOMContentLoaded", () => {
  serveMathematics();
  lightMap();
});
addEventListener("load", addStops);
addEventListener("resize", addStops);
addEventListener("beforeprint", setFolds(true));
addEventListener("afterprint", setFolds(false));
