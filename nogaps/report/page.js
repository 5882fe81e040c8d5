"use strict";
// without this script the page is complete: every code cell opens by itself
const toggle = document.querySelector("button.all-code");
const cells = [...document.querySelectorAll("details.code")];

function showState() {
  const open = cells.every((cell) => cell.open);
  toggle.setAttribute("aria-pressed", String(open));
  toggle.textContent = open ? "Hide all code" : "Show all code";
}

toggle.addEventListener("click", () => {
  const open = toggle.getAttribute("aria-pressed") !== "true";
  for (const cell of cells) cell.open = open;
  showState();
});
for (const cell of cells) cell.addEventListener("toggle", showState);
toggle.hidden = cells.length === 0;

const zooms = [...document.querySelectorAll("figure")].map((figure) => {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "zoom";
  button.textContent = "full size";
  button.setAttribute("aria-pressed", "false");
  button.addEventListener("click", () => {
    const full = figure.classList.toggle("full");
    button.setAttribute("aria-pressed", String(full));
    button.textContent = full ? "fit to page" : "full size";
  });
  figure.querySelector("figcaption").append(" ", button);
  return { figure, button, image: figure.querySelector("img") };
});

// a figure that is shown at its own size needs no button
function fitZooms() {
  for (const { figure, button, image } of zooms) {
    const shown = image.getBoundingClientRect().width;
    button.hidden = !figure.classList.contains("full") && shown >= image.naturalWidth - 1;
  }
}
addEventListener("resize", fitZooms);
addEventListener("load", fitZooms);
