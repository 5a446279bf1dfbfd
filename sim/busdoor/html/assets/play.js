// Plays the timelines: draws the curtain before what has not happened yet, fills the slots, and turns the counters.
"use strict";

(() => {
  const PLAY_MS = 24000; // long enough to follow, short enough to wait for
  const PICTURE_MS = 33; // thirty pictures a second look smooth, and leave a phone cool
  const source = document.getElementById("film");
  if (!source) return;
  const film = JSON.parse(source.textContent);
  const form = document.querySelector(".controls");
  const [button, slider, clock] = ["play", "time", "clock"].map((id) => document.getElementById(id));
  const sides = [...document.querySelectorAll(".side")].map((figure, number) => ({
    ...film.sides[number],
    riders: [...figure.querySelectorAll(".rider")],
    curtain: figure.querySelector(".curtain"),
    counters: [...figure.querySelectorAll("[data-count]")],
    stays: staysBySlot(film.sides[number]),
  }));
  const WRITE = {
    answered: (value) => value.toLocaleString("en"),
    waiting: (value) => value.toLocaleString("en"),
    opened: (value) => value.toLocaleString("en") + "×",
    useful: (value) => (value < 0 ? "–" : (value / 10).toFixed(1) + " %"),
  };
  let frame = film.frames; // with a fraction while it plays
  let timer = null;
  let playing = null; // the moment of the last picture, while it plays

  function staysBySlot({ rows, bars }) {
    const slots = Array.from({ length: rows }, () => []);
    for (const [slot, ...moments] of bars) slots[slot].push(moments.map((moment) => moment / 1000));
    return slots;
  }

  function show(wanted) {
    frame = Math.min(film.frames, Math.max(0, wanted));
    const whole = Math.floor(frame);
    slider.value = whole;
    clock.value = timeText(whole);
    slider.setAttribute("aria-valuetext", timeText(whole) + sides.map((side) => spoken(side, whole)).join(""));
    for (const side of sides) {
      drawCurtain(side.curtain, (100 * frame) / film.frames);
      side.riders.forEach((rider, slot) => fillSlot(rider, side.stays[slot], frame));
      for (const counter of side.counters) {
        const name = counter.dataset.count;
        counter.textContent = WRITE[name](side[name][whole]);
      }
    }
  }

  function timeText(whole) {
    const seconds = whole * film.step_s;
    return seconds.toLocaleString("en", { minimumFractionDigits: film.digits, maximumFractionDigits: film.digits }) + " s";
  }

  function spoken(side, whole) {
    return `; ${side.name}: ${side.answered[whole]} answered, useful share ${WRITE.useful(side.useful[whole])}`;
  }

  function drawCurtain(curtain, percent) {
    const [future, now] = curtain.children;
    future.setAttribute("x", percent + "%");
    now.setAttribute("x1", percent + "%");
    now.setAttribute("x2", percent + "%");
  }

  function fillSlot(rider, stays, now) {
    const stay = stays.find(([enter, , , leave]) => enter <= now && now < leave);
    const [kind, share] = stay ? progress(stay, now) : ["free", 0];
    rider.setAttribute("class", "rider " + kind);
    rider.setAttribute("width", 100 * share + "%");
  }

  function progress([, prefilled, done], now) {
    if (now < prefilled) return ["prefill", 1];
    if (now < done) return ["decode", Math.max(0.1, (now - prefilled) / (done - prefilled))];
    return ["finished", 1];
  }

  function play() {
    if (frame >= film.frames) show(0);
    playing = performance.now();
    timer = setInterval(tick, PICTURE_MS);
    label();
  }

  function pause() {
    clearInterval(timer);
    playing = null;
    label();
  }

  function tick() {
    const now = performance.now();
    const passed = now - playing;
    playing = now;
    show(frame + (passed * film.frames) / PLAY_MS);
    if (frame >= film.frames) pause();
  }

  function label() {
    const word = playing === null ? "Play" : "Pause";
    button.firstElementChild.textContent = playing === null ? "▶" : "❚❚";
    button.lastElementChild.textContent = word;
    button.setAttribute("aria-label", word);
  }

  button.addEventListener("click", () => (playing === null ? play() : pause()));
  slider.addEventListener("input", () => {
    pause();
    show(Number(slider.value));
  });
  slider.addEventListener("keydown", (event) => {
    if (event.key !== " ") return;
    event.preventDefault();
    button.click();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  window.addEventListener("beforeprint", () => {
    pause();
    show(film.frames);
  });

  const speed = (film.frames * film.step_s * 1000) / PLAY_MS;
  document.getElementById("speed").textContent = `Played at ${speed.toPrecision(2)} times its real speed.`;
  document.body.classList.add("live");
  form.hidden = false;
  show(film.frames);
})();
