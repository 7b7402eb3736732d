// What every page can do with a script; without one, forms and links do the same.
"use strict";

for (const chip of document.querySelectorAll("button[data-into]"))
  chip.addEventListener("click", () => {
    const field = document.getElementById(chip.dataset.into);
    field.value = chip.textContent;
    field.focus();
  });

// A server closes the connection of what is too large, and a browser then tells nothing.
for (const input of document.querySelectorAll("input[data-most-mib]"))
  input.addEventListener("change", () => {
    const most = Number(input.dataset.mostMib);
    const isLarge = [...input.files].some(({ size }) => size > most * 2 ** 20);
    input.setCustomValidity(isLarge ? `The file is larger than ${most} MiB. Give its path instead.` : "");
    input.reportValidity();
  });

// A second press of a button would ask twice.
for (const form of document.querySelectorAll("form[method=post]"))
  form.addEventListener("submit", () => {
    for (const button of form.querySelectorAll("button:not([type=button])")) {
      setTimeout(() => (button.disabled = true));
      setTimeout(() => (button.disabled = false), 8000);
    }
  });
window.addEventListener("pageshow", () => {
  for (const button of document.querySelectorAll("button:disabled")) button.disabled = false;
});
