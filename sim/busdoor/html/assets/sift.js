// A slider for each swept value: rows of other values are hidden; at 0 all are shown.
"use strict";

for (const form of document.querySelectorAll(".sift")) {
  const rows = [...form.nextElementSibling.querySelectorAll("tbody tr")].slice(1);
  const sliders = [...form.querySelectorAll("input")];
  const show = () => {
    const wanted = sliders.map((slider) => {
      const values = JSON.parse(slider.dataset.values);
      const value = slider.value > 0 ? values[slider.value - 1] : null;
      slider.nextElementSibling.textContent = value ?? "all";
      slider.setAttribute("aria-valuetext", value ?? "all");
      return value;
    });
    for (const row of rows)
      row.hidden = wanted.some((value, column) => value !== null && row.cells[column].textContent !== value);
  };
  for (const slider of sliders) slider.addEventListener("input", show);
  form.hidden = false;
  show();
}
