"use strict";
// Everything happens here: nothing is loaded, nothing is sent. The page knows no right answers.
const study = JSON.parse(document.getElementById("study").textContent);
const LOCK = 250; // ms after a new question in which a press still belongs to the one before
const SECONDS = 7; // that a question takes, about
const NAME = "deid-study-" + study.page;
const $ = (id) => document.getElementById(id);
const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);

// --- what is kept ---------------------------------------------------------------------------------------------------
const memory = {
  works: true,
  call(action) {
    try {
      return action(window.localStorage);
    } catch {
      this.works = false;
      return null;
    }
  },
  load() {
    const text = this.call((store) => {
      store.setItem(NAME + "-try", "1");
      store.removeItem(NAME + "-try");
      return store.getItem(NAME);
    });
    try {
      const kept = JSON.parse(text);
      return kept && kept.page === study.page && Array.isArray(kept.answers) ? kept : null;
    } catch {
      return null;
    }
  },
  save() { this.call((store) => store.setItem(NAME, JSON.stringify(state))); },
  forget() { this.call((store) => store.removeItem(NAME)); },
};

// --- order: drawn for each participant, the same again for the same id ------------------------------------------------
function hashed(text) { // xmur3: four 32-bit seeds of a text
  let h = 1779033703 ^ text.length;
  for (const c of text) {
    h = Math.imul(h ^ c.charCodeAt(0), 3432918353);
    h = (h << 13) | (h >>> 19);
  }
  return () => {
    h = Math.imul(h ^ (h >>> 16), 2246822507);
    h = Math.imul(h ^ (h >>> 13), 3266489909);
    return (h ^= h >>> 16) >>> 0;
  };
}

function generator(text) { // sfc32: numbers from 0 to below 1
  const seed = hashed(text);
  let [a, b, c, d] = [seed(), seed(), seed(), seed()];
  const next = () => {
    const t = (a + b + d) | 0;
    d = (d + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = ((c << 21) | (c >>> 11)) + t | 0;
    return (t >>> 0) / 4294967296;
  };
  for (let n = 0; n < 12; n++) next();
  return next;
}

function shuffled(list, random) {
  const result = [...list];
  for (let n = result.length - 1; n > 0; n--) {
    const other = Math.floor(random() * (n + 1));
    [result[n], result[other]] = [result[other], result[n]];
  }
  return result;
}

function ordered(participant) {
  const random = generator(participant);
  const options = {};
  for (const [kind, question] of Object.entries(study.questions)) {
    options[kind] = question.turns ? shuffled(question.options, random) : question.options;
  }
  const isCheck = (task) => task.kind === "press" || task.kind === "upright";
  const plain = shuffled(study.tasks.filter((task) => !isCheck(task)), random);
  const checks = shuffled(study.tasks.filter(isCheck), random);
  const tasks = [];
  checks.forEach((check, n) => { // one in each part, wherever in it
    const from = Math.floor((n * plain.length) / checks.length);
    const part = plain.slice(from, Math.floor(((n + 1) * plain.length) / checks.length));
    part.splice(Math.floor(random() * (part.length + 1)), 0, check);
    tasks.push(...part);
  });
  return tasks.map((task) => (
    { ...task, pictures: shuffled(task.pictures, random), options: options[task.kind] }));
}

// --- state ----------------------------------------------------------------------------------------------------------
let state, order, kept;
let screen = "start";
const clock = { spent: 0, since: null,
  start() { if (this.since === null) this.since = performance.now(); },
  stop() { if (this.since !== null) { this.spent += performance.now() - this.since; this.since = null; } },
  reset() { this.spent = 0; this.since = null; },
  get now() { return this.spent + (this.since === null ? 0 : performance.now() - this.since); },
};

function fresh() {
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  const participant = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return { page: study.page, participant, language: state ? state.language : study.language, answers: [] };
}

function take(next) {
  state = next;
  order = ordered(state.participant);
}

// --- screens --------------------------------------------------------------------------------------------------------
const texts = () => study.texts[state.language];

function show(name, focus) {
  screen = name;
  for (const id of ["start", "task", "paused", "end"]) $(id).hidden = id !== name;
  $("pause").hidden = name !== "task";
  $("bar").hidden = name === "start";
  label();
  if (focus) $(focus).focus();
}

function label() {
  const t = texts(), total = order.length, n = state.answers.length;
  document.documentElement.lang = state.language;
  document.title = t.title;
  $("name").textContent = t.title;
  $("language").textContent = t.other_language;
  $("language").lang = state.language === "en" ? "ja" : "en";
  $("help-open").textContent = t.help;
  $("pause").textContent = t.pause;
  $("progress").value = n / total;
  $("progress").setAttribute("aria-label", fill(t.count, { n, total }));
  $("count").textContent = fill(t.count, { n: Math.min(n + (screen === "end" ? 0 : 1), total), total });
  labelStart(t, total, n);
  for (const [id, text] of [["paused-title", t.paused_title], ["paused-text", t.paused_text], ["resume", t.resume],
    ["end-title", t.end_title], ["end-text", t.end_text], ["save", t.save], ["copy-title", t.copy_title],
    ["forget-text", state.saved ? t.forget_text : t.forget_first], ["forget", t.forget], ["help-title", t.help], ["help-close", t.close]]) {
    $(id).textContent = text;
  }
  $("forget").disabled = !state.saved; // they would be lost
  $("copy").setAttribute("aria-label", t.copy_label);
  $("help-text").replaceChildren(...t.help_items.map((text) => made("li", text)));
  if (screen === "task") labelTask(t);
}

function labelStart(t, total, n) {
  const minutes = Math.max(1, Math.round((total * SECONDS) / 60));
  const about = t.about.map((text) => fill(text, { total, minutes }));
  if (study.contact) about.push(fill(t.contact, { contact: study.contact }));
  $("start-title").textContent = t.title;
  $("about").replaceChildren(...about.map((text) => made("p", text)));
  $("no-memory").textContent = memory.works ? "" : t.no_memory;
  $("consent-text").textContent = t.consent;
  $("begin").textContent = kept ? fill(t.go_on, { n: Math.min(n + 1, total) }) : t.begin;
  $("restart").textContent = t.restart;
  $("restart").hidden = !kept;
}

function made(tag, text) {
  const element = document.createElement(tag);
  element.textContent = text;
  return element;
}

function labelTask(t) {
  const task = order[state.answers.length];
  const word = task.word ? t.options.press[task.word] : "";
  $("question").textContent = fill(t.questions[task.kind], { word });
  [...$("pictures").children].forEach((image, n, all) => {
    image.alt = all.length === 1 ? t.picture : [t.picture_left, t.picture_right][n];
  });
  [...$("answers").children].forEach((button, n) => {
    const key = made("kbd", String(n + 1));
    key.setAttribute("aria-hidden", "true");
    button.replaceChildren(key, made("span", t.options[task.kind][task.options[n]]));
  });
  $("hint").textContent = fill(t.hint, { n: task.options.length });
}

let shownAt = 0;
async function ask() {
  const task = order[state.answers.length];
  if (!task) return finish();
  clock.reset();
  $("pictures").replaceChildren(...task.pictures.map((id) => {
    const image = document.createElement("img");
    image.src = "data:image/jpeg;base64," + study.pictures[id];
    image.draggable = false;
    return image;
  }));
  $("answers").className = task.options.length > 4 ? "many" : "";
  $("answers").replaceChildren(...task.options.map((option) => {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.option = option;
    button.addEventListener("click", () => answer(task, option));
    return button;
  }));
  shownAt = Infinity; // no answer counts before the pictures are there
  show("task", "question");
  window.scrollTo(0, 0);
  await Promise.all([...$("pictures").children].map((image) => image.decode().catch(() => null)));
  shownAt = performance.now();
  if (screen === "task" && !document.hidden && !$("help").open) clock.start();
}

function answer(task, option) {
  if (screen !== "task" || task !== order[state.answers.length] || performance.now() - shownAt < LOCK) return;
  clock.stop();
  state.answers.push({ task: task.id, answer: option, milliseconds: Math.round(clock.spent), language: state.language });
  memory.save();
  ask();
}

function pause() {
  clock.stop();
  memory.save();
  show("paused", "paused-title");
}

function resume() {
  show("task", "question");
  clock.start();
}

function finish() {
  memory.save();
  $("copy").value = csv();
  show("end", "end-title");
}

function language() {
  state.language = state.language === "en" ? "ja" : "en";
  if (state.answers.length) memory.save();
  label();
}

function help(open) {
  if (open && !$("help").open) {
    clock.stop();
    $("help").showModal();
  } else if (!open && $("help").open) {
    $("help").close();
  }
}

// --- the file of answers ----------------------------------------------------------------------------------------------
function csv() {
  const quoted = (value) => (/[",\r\n]/.test(value) ? '"' + value.replaceAll('"', '""') + '"' : value);
  const rows = state.answers.map((given, n) => {
    const task = order[n];
    const row = {
      ...given, participant: state.participant, kind: task.kind, position: n + 1, page: state.page,
      shown: task.pictures.join(" ") + " | " + task.options.join(" / "),
    };
    return study.columns.map((name) => quoted(String(row[name]))).join(",");
  });
  return [study.columns.join(","), ...rows].join("\r\n") + "\r\n";
}

function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(["\ufeff" + csv()], { type: "text/csv;charset=utf-8" }));
  link.download = "study-answers-" + state.participant + ".csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  safe();
}

function safe() { // somebody has the answers outside this page
  state.saved = true;
  memory.save();
  label();
}

// --- keys -----------------------------------------------------------------------------------------------------------
const STEPS = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
  const key = event.key.normalize("NFKC");
  if (key.toLowerCase() === "h" || key === "?") return help(!$("help").open);
  if ($("help").open) return;
  if (key.toLowerCase() === "p" && screen === "task") return pause();
  if (key.toLowerCase() === "p" && screen === "paused") return resume();
  if (screen !== "task") return;
  const buttons = [...$("answers").children];
  if (key in STEPS) {
    const at = buttons.indexOf(document.activeElement);
    const next = at < 0 ? (STEPS[key] > 0 ? 0 : buttons.length - 1) : at + STEPS[key];
    buttons[(next + buttons.length) % buttons.length].focus();
    event.preventDefault();
  } else if (/^[1-9]$/.test(key) && buttons[key - 1]) {
    buttons[key - 1].click();
  }
});

document.addEventListener("visibilitychange", () => {
  if (screen !== "task") return;
  if (document.hidden) clock.stop();
  else if (!$("help").open && shownAt < Infinity) clock.start();
});
$("help").addEventListener("close", () => { if (screen === "task") clock.start(); });
$("consent").addEventListener("change", () => { $("begin").disabled = !$("consent").checked; });
$("begin").addEventListener("click", ask);
$("restart").addEventListener("click", () => {
  memory.forget();
  kept = null;
  take(fresh());
  label();
});
$("pause").addEventListener("click", pause);
$("resume").addEventListener("click", resume);
$("language").addEventListener("click", language);
$("help-open").addEventListener("click", () => help(true));
$("help-close").addEventListener("click", () => help(false));
$("save").addEventListener("click", save);
$("copy").addEventListener("copy", () => { // all of it: a part is no copy
  if ($("copy").selectionEnd - $("copy").selectionStart === $("copy").value.length) safe();
});
$("forget").addEventListener("click", () => {
  memory.forget();
  kept = null;
  $("consent").checked = false;
  $("begin").disabled = true;
  $("copy").value = "";
  take(fresh());
  show("start", "start-title");
});

kept = memory.load();
take(kept || fresh());
show("start");
