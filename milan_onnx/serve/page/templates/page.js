// The page of the service. All data comes from its API and is shown as text only.
"use strict";
(() => {
  const LIST_MS = 4000; // how often the list is asked for again
  const STREAMS = 3; // runs followed at once: a browser opens six connections to a host
  const PAGE = 20;
  const UNITS = 50;
  const TYPING_MS = 200;
  const main = document.getElementById("main");
  const searched = new Map(); // the last search in each run, to come back to
  let leave = new AbortController(); // ends what the shown view has begun

  // --- elements -------------------------------------------------------------------------------

  /** An element; properties that begin with "on" are listeners, text stays text. */
  function make(tag, properties = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (name === "class") node.className = value;
      else if (name in node && typeof value !== "string") node[name] = value;
      else node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.flat().filter((child) => child !== null && child !== undefined));
    return node;
  }

  const element = (id) => document.getElementById(id);

  function head(title, lead = "") {
    element("title").textContent = title;
    element("lead").textContent = lead;
    document.title = `${title} · milan-onnx`;
  }

  function tell(text) {
    element("status").textContent = text;
  }

  function complain(error) {
    const place = element("problem");
    if (error && error.name === "AbortError") return;
    place.hidden = !error;
    place.replaceChildren(...(error ? sentences(error) : []));
    if (error) place.scrollIntoView({ block: "nearest" });
  }

  function sentences(error) {
    const hint = error.hint ? make("small", {}, error.hint) : null;
    return [error.message, hint].filter(Boolean);
  }

  // --- asking the service ---------------------------------------------------------------------

  class Refused extends Error {
    constructor(status, answer) {
      super(answer.error || `the service answered ${status}`);
      this.status = status;
      this.hint = answer.hint || "";
    }
  }

  const bearer = () => {
    const token = sessionStorage.getItem("token");
    return token ? { Authorization: `Bearer ${token}` } : {};
  };

  /** The answer to a request. Asks for the token where there is none or a wrong one. */
  async function ask(path, options = {}) {
    for (;;) {
      const headers = { ...bearer(), ...options.headers };
      const answer = await fetch(path, { signal: leave.signal, ...options, headers });
      if (answer.status !== 401) {
        if (!answer.ok) throw new Refused(answer.status, await answer.json().catch(() => ({})));
        return answer;
      }
      await askToken("Authorization" in headers);
    }
  }

  const json = async (path, options) => (await ask(path, options)).json();

  let asking = null;

  /** Let the reader give the token; one dialog, however many requests wait for it. */
  function askToken(wrong) {
    asking ??= new Promise((resolve) => {
      const box = element("ask");
      const problem = element("ask-problem");
      problem.hidden = !wrong;
      problem.textContent = "This token is not the one.";
      box.addEventListener("cancel", (event) => event.preventDefault());
      box.onclose = () => {
        sessionStorage.setItem("token", element("token").value);
        element("token").value = "";
        element("forget").hidden = false;
        asking = null;
        resolve();
      };
      box.showModal();
    });
    return asking;
  }

  /** Follow server-sent events with the token, and again where the stream was cut. */
  async function follow(path, signal, onEvent) {
    let last = 0;
    while (!signal.aborted) {
      try {
        const answer = await ask(path, { signal, headers: { "Last-Event-ID": String(last) } });
        for await (const event of events(answer.body.getReader())) {
          last = event.id ?? last;
          onEvent(event.kind, event.data);
          if (event.kind === "end") return;
        }
      } catch (error) {
        if (signal.aborted || [404, 409].includes(error.status)) return;
      }
      await new Promise((resolve) => setTimeout(resolve, 2000));
    }
  }

  async function* events(reader) {
    const decoder = new TextDecoder();
    let text = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      text += decoder.decode(value, { stream: true });
      const blocks = text.split("\n\n");
      text = blocks.pop();
      for (const block of blocks) {
        const fields = Object.fromEntries(
          block.split("\n").map((line) => [line.split(":", 1)[0], line.slice(line.indexOf(":") + 1).trim()]),
        );
        if (!fields.data) continue;
        yield {
          kind: fields.event,
          id: fields.id ? Number(fields.id) : null,
          data: JSON.parse(fields.data),
        };
      }
    }
  }

  // --- words ----------------------------------------------------------------------------------

  const STAGES = {
    scan: "Scanning photos",
    encode: "Encoding exemplars",
    describe: "Describing units",
    validate: "Testing labels",
  };

  /** A confidence as it is shown everywhere, rounded down: 73 %. */
  const percent = (value) => (value === null ? "–" : `${Math.floor(Math.round(1e4 * value) / 100)} %`);
  const rounded = (value, digits = 2) => (value === null ? "–" : value.toFixed(digits));
  const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

  function duration(seconds) {
    if (seconds < 90) return `${Math.round(seconds)} s`;
    if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
    return `${(seconds / 3600).toFixed(1)} h`;
  }

  function ago(stamp) {
    const seconds = (Date.now() - Date.parse(stamp)) / 1000;
    if (seconds < 10) return "just now";
    if (seconds < 86400) return `${duration(seconds)} ago`;
    return new Date(stamp).toLocaleDateString("en", { dateStyle: "medium" });
  }

  function progressText(progress) {
    if (!progress) return "Starting";
    const stage = STAGES[progress.stage] || progress.stage;
    const of = `${progress.done.toLocaleString("en")} of ${progress.total.toLocaleString("en")} ${progress.unit}`;
    const rate = progress.done ? ` · ${progress.rate >= 10 ? Math.round(progress.rate) : progress.rate.toFixed(1)}/s` : "";
    const left = progress.left ? ` · ${duration(progress.left)} left` : "";
    return `${stage}: ${of}${rate}${left}`;
  }

  function what(run) {
    const parts = [];
    if (run.summary) parts.push(`${count(run.summary.units, "unit")} of ${count(run.summary.layers, "layer")}`);
    else if (run.source === "job") parts.push(run.layers ? run.layers.map(bare).join(", ") : "deepest layer");
    if (run.source === "folder") parts.push("made by the command line");
    else parts.push(run.images || "built-in images");
    if (run.state === "queued") parts.push(run.position ? `${count(run.position, "job")} before it` : "next in the queue");
    parts.push(ago(run.finished || run.created));
    return parts.join(" · ");
  }

  const bare = (layer) => layer.replace(/^tensor:/, "");
  const state = (name) => make("span", { class: `state ${name}` }, name);
  const address = (...parts) => "#" + parts.map(encodeURIComponent).join("/");
  const api = (...parts) => "/v1/runs/" + parts.map(encodeURIComponent).join("/");

  // --- the list of runs -----------------------------------------------------------------------

  async function showRuns(offset) {
    head("Runs", "Units of vision networks, described: what is running, and what was found.");
    const places = await json("/v1/places");
    const list = make("ul", { class: "runs", "aria-label": "Runs" });
    const pager = make("nav", { class: "pager", "aria-label": "Pages" });
    const form = places.read_only ? null : newRun(places);
    main.replaceChildren(...[form, list, pager].filter(Boolean));
    const cards = new Map();
    const refresh = async () => {
      const found = await json(`/v1/runs?limit=${PAGE}&offset=${offset}`);
      update(list, cards, found.runs, places.read_only);
      page(pager, found, PAGE, (next) => address("runs", next));
      if (form && !found.total) form.open = true;
    };
    list.addEventListener("changed", () => refresh().catch(complain));
    await refresh();
    const timer = setInterval(() => refresh().catch(complain), LIST_MS);
    leave.signal.addEventListener("abort", () => clearInterval(timer));
  }

  /** Bring the cards of a list up to date, keeping those that stay (and what has the focus). */
  function update(list, cards, runs, readOnly) {
    const shown = new Set(runs.map((run) => run.id));
    for (const [id, card] of cards) {
      if (!shown.has(id)) {
        card.end();
        card.node.remove();
        cards.delete(id);
      }
    }
    if (!runs.length) {
      list.replaceChildren(make("li", { class: "empty" }, "No runs yet."));
      return;
    }
    for (const empty of list.querySelectorAll(".empty")) empty.remove();
    let followed = [...cards.values()].filter((card) => card.following()).length;
    runs.forEach((run, place) => {
      if (!cards.has(run.id)) cards.set(run.id, runCard(run.id, readOnly));
      const card = cards.get(run.id);
      card.show(run);
      if (list.children[place] !== card.node) list.insertBefore(card.node, list.children[place] || null);
      if (run.state === "running" && !card.following() && followed < STREAMS) {
        followed += 1;
        card.follow();
      }
    });
  }

  function runCard(id, readOnly) {
    const node = make("li", { class: "run", "data-id": id });
    let stream = null;
    let signature = "";
    let live = null;
    const changed = () => node.dispatchEvent(new Event("changed", { bubbles: true }));
    return {
      node,
      show(run) {
        const next = JSON.stringify([run.state, run.position, run.summary, run.error, what(run)]);
        if (next !== signature) {
          signature = next;
          live = run.state === "running" ? progressBar() : null;
          const actions = runActions(run, readOnly, changed);
          refill(node, [
            make("div", { class: "name" }, make("a", { href: address("run", id) }, run.name), state(run.state)),
            make("div", { class: "what" }, what(run)),
            actions,
            live?.node,
            run.error ? make("div", { class: "why" }, run.error.error, run.error.hint ? `; ${run.error.hint}` : "") : null,
          ]);
        }
        if (live && !stream) live.show(run.progress);
      },
      following: () => stream !== null,
      follow() {
        stream = new AbortController();
        leave.signal.addEventListener("abort", () => stream?.abort());
        follow(api(id, "events"), stream.signal, (kind, data) => {
          if (kind === "progress") live?.show(data);
        }).then(() => {
          stream = null;
          if (!leave.signal.aborted) changed();
        });
      },
      end: () => stream?.abort(),
    };
  }

  /** New children for a node; the focus stays at the same place among them. */
  function refill(node, children) {
    const focusable = () => [...node.querySelectorAll("a, button")];
    const had = focusable().indexOf(document.activeElement);
    node.replaceChildren(...children.filter(Boolean));
    if (had >= 0) focusable()[had]?.focus();
  }

  function progressBar() {
    const bar = make("progress", { max: 1, "aria-label": "Progress of the stage" });
    const text = make("span", {}, "Starting");
    return {
      node: make("div", { class: "live" }, bar, text),
      show(progress) {
        text.textContent = progressText(progress);
        if (progress && progress.total) bar.value = progress.done / progress.total;
        else bar.removeAttribute("value");
      },
    };
  }

  function runActions(run, readOnly, changed) {
    const buttons = [];
    const act = (label, kind, work, question) =>
      make("button", {
        type: "button",
        class: kind,
        "aria-label": `${label} ${run.name}`,
        onclick: async (event) => {
          if (question && !confirm(question)) return;
          event.target.disabled = true;
          complain(null);
          await work().catch(complain);
          event.target.disabled = false;
          changed();
        },
      }, label);
    if (run.state === "done") buttons.push(reportButton(run));
    if (run.source === "job" && !readOnly) {
      const ended = ["done", "failed", "cancelled"].includes(run.state);
      if (!ended) buttons.push(act("Cancel", "", () => ask(api(run.id, "cancel"), { method: "POST" })));
      else buttons.push(act("Delete", "danger", () => ask(api(run.id), { method: "DELETE" }), `Delete ${run.name} and all that it found?`));
    }
    return make("div", { class: "actions" }, buttons);
  }

  function reportButton(run) {
    return make("button", {
      type: "button",
      "aria-label": `Report of ${run.name}`,
      onclick: async () => {
        // Opened now, while it is the reader's click; its address comes after.
        const tab = open("", "_blank");
        try {
          const link = await json(api(run.id, "report-link"));
          if (tab) {
            tab.opener = null;
            tab.location = link.href;
          } else location.href = link.href;
        } catch (error) {
          tab?.close();
          complain(error);
        }
      },
    }, "Report");
  }

  function page(pager, found, size, href) {
    const { offset, total } = found;
    pager.hidden = total <= size;
    const link = (label, to, there) => (there ? make("a", { href: href(to) }, label) : make("span", {}, ""));
    pager.replaceChildren(
      link("← Newer", Math.max(0, offset - size), offset > 0),
      `${offset + 1}–${Math.min(total, offset + size)} of ${total}`,
      link("Older →", offset + size, offset + size < total),
    );
  }

  // --- the form -------------------------------------------------------------------------------

  function choices(name, ways, onChange) {
    return make("div", { class: "ways", role: "radiogroup" },
      ways.map(([value, label], place) =>
        make("label", {}, make("input", { type: "radio", name, value, checked: place === 0, onchange: onChange }), label)));
  }

  const chosen = (form, name) => form.querySelector(`input[name="${name}"]:checked`).value;

  function newRun(places) {
    const problem = make("p", { class: "problem wide", role: "alert", hidden: true });
    const form = make("form", { class: "new" },
      modelField(places), layersField(), photosField(places), optionsField(), problem, sendField());
    const shown = () => {
      for (const part of form.querySelectorAll("[data-way]")) {
        const [name, value] = part.dataset.way.split("=");
        part.hidden = chosen(form, name) !== value;
      }
    };
    form.addEventListener("change", shown);
    form.elements.namedItem("model-path")?.addEventListener("change", () => listLayers(form, problem));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      submit(form, problem, panel).catch((error) => {
        problem.hidden = false;
        problem.replaceChildren(...sentences(error));
      });
    });
    shown();
    const panel = make("details", { class: "panel", id: "new" },
      make("summary", {}, "New run"), make("div", { class: "inside" }, form));
    panel.addEventListener("toggle", () => panel.open && listLayers(form, problem));
    return panel;
  }

  function pathSelect(name, label, paths) {
    return make("label", {}, make("span", {}, label),
      make("select", { name }, paths.map((path) => make("option", { value: path, title: path }, shortened(path)))));
  }

  /** A path with what tells it from others in front. */
  function shortened(path) {
    const parts = path.split("/");
    const name = parts.pop();
    return parts.length > 1 ? `${name} (${parts.join("/")})` : path;
  }

  function modelField(places) {
    const ways = [["folder", "From a folder"], ["upload", "Upload"]];
    const own = places.models.length ? ways : ways.slice(1);
    return make("fieldset", {}, make("legend", {}, "Model"),
      choices("model-way", own),
      make("div", { class: "stack" },
        make("div", { "data-way": "model-way=folder" }, pathSelect("model-path", "ONNX file in an allowed folder", places.models)),
        make("label", { "data-way": "model-way=upload" }, make("span", {}, "ONNX file, its weights inside"),
          make("input", { type: "file", name: "model-file", accept: ".onnx" }))));
  }

  function layersField() {
    return make("fieldset", {}, make("legend", {}, "Layers"),
      make("div", { class: "stack" },
        make("div", { "data-way": "model-way=folder" },
          make("label", {}, make("span", {}, "Pick several with Ctrl or Shift; none: the deepest"),
            make("select", { name: "layers", multiple: true, size: 6 }))),
        make("label", {}, make("span", {}, "Or names and globs, by commas"),
          make("input", { name: "layer-names", placeholder: "layer3*, layer4.1", autocomplete: "off", spellcheck: "false" }))));
  }

  function photosField(places) {
    const ways = [["folder", "From a folder"], ["builtin", "Built-in"], ["upload", "Upload"]];
    const own = places.photos.length ? ways : ways.slice(1);
    return make("fieldset", {}, make("legend", {}, "Photos"),
      choices("photos-way", own),
      make("div", { class: "stack" },
        make("div", { "data-way": "photos-way=folder" }, pathSelect("photos-path", "Folder or archive", places.photos)),
        make("p", { class: "hint", "data-way": "photos-way=builtin" }, "Drawn images: good to see that it works, too narrow to trust."),
        make("label", { "data-way": "photos-way=upload" }, make("span", {}, "A zip of photos"),
          make("input", { type: "file", name: "photos-file", accept: ".zip" }))));
  }

  function optionsField() {
    const number = (name, label, least, placeholder) =>
      make("label", {}, make("span", {}, label),
        make("input", { type: "number", name, min: String(least), step: "1", inputmode: "numeric", placeholder }));
    const select = (name, label, values) =>
      make("label", {}, make("span", {}, label),
        make("select", { name }, values.map(([value, text]) => make("option", { value }, text))));
    return make("details", { class: "wide" }, make("summary", {}, "Options"),
      make("div", { class: "options" },
        make("label", {}, make("span", {}, "Name of the run"), make("input", { name: "name", maxlength: "200", autocomplete: "off", placeholder: "the model's" })),
        number("exemplars", "Exemplars a unit", 1, "15"),
        number("limit", "Photos at most", 1, "all"),
        number("synthetic", "Built-in images", 1, "1000"),
        number("beam_size", "Beam", 1, "the captioner's"),
        select("strategy", "Search", [["", "the captioner's"], ["consensus", "beam, then agreement"], ["rerank", "beam, then PMI"], ["beam", "beam alone"], ["greedy", "greedy"]]),
        select("validity", "Test labels on held-out photos", [["", "where there are enough"], ["true", "yes"], ["false", "no"]])));
  }

  function sendField() {
    return make("div", { class: "wide send" },
      make("button", { class: "primary", type: "submit" }, "Start"),
      make("progress", { max: 1, hidden: true, "aria-label": "Upload" }));
  }

  /** Offer the layers of the chosen model, the last ones in view: they say most. */
  async function listLayers(form, problem) {
    const path = form.elements.namedItem("model-path")?.value;
    const select = form.elements.namedItem("layers");
    if (!path || select.dataset.of === path) return;
    select.dataset.of = path;
    select.replaceChildren(make("option", { disabled: true }, "Listing the layers…"));
    try {
      const { layers } = await json(`/v1/models?path=${encodeURIComponent(path)}`);
      if (select.dataset.of !== path) return;
      select.replaceChildren(...layers.map((layer) => {
        const units = layer.units === null ? "" : `${layer.units} units, `;
        return make("option", { value: `tensor:${layer.tensor}` }, `${layer.module || layer.tensor} (${units}${layer.op})`);
      }));
      select.scrollTop = select.scrollHeight;
      problem.hidden = true;
    } catch (error) {
      if (error.name === "AbortError") return;
      select.replaceChildren();
      delete select.dataset.of;
      problem.hidden = false;
      problem.replaceChildren(...sentences(error));
    }
  }

  function wanted(form) {
    const field = (name) => form.elements.namedItem(name);
    const options = {};
    for (const name of ["exemplars", "limit", "synthetic", "beam_size"]) {
      if (field(name).value) options[name] = Number(field(name).value);
    }
    if (field("strategy").value) options.strategy = field("strategy").value;
    if (field("validity").value) options.validity = field("validity").value === "true";
    const fromFolder = chosen(form, "model-way") === "folder";
    const picked = fromFolder ? [...field("layers").selectedOptions].map((option) => option.value) : [];
    const named = field("layer-names").value.split(",").map((name) => name.trim()).filter(Boolean);
    const layers = [...picked, ...named];
    const request = { options };
    if (layers.length) request.layers = layers;
    if (field("name").value) request.name = field("name").value;
    if (fromFolder) request.model = field("model-path").value;
    if (chosen(form, "photos-way") === "folder") request.images = field("photos-path").value;
    return request;
  }

  async function submit(form, problem, panel) {
    problem.hidden = true;
    const body = new FormData();
    body.append("request", JSON.stringify(wanted(form)));
    for (const [way, name, input] of [["model-way", "model", "model-file"], ["photos-way", "images", "photos-file"]]) {
      if (chosen(form, way) !== "upload") continue;
      const file = form.elements.namedItem(input).files[0];
      if (!file) throw new Error(name === "model" ? "no model is chosen" : "no photos are chosen");
      body.append(name, file);
    }
    const button = form.querySelector(".send button");
    button.disabled = true;
    try {
      const run = await send(body, form.querySelector(".send progress"));
      panel.open = false;
      tell(`${run.name} was queued`);
      location.hash = address("run", run.id);
    } finally {
      button.disabled = false;
    }
  }

  /** Send a form; only this older way of asking tells how much of it has gone. */
  function send(body, bar) {
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      request.open("POST", "/v1/runs");
      for (const [name, value] of Object.entries(bearer())) request.setRequestHeader(name, value);
      request.responseType = "json";
      request.upload.onprogress = (event) => {
        bar.hidden = !event.lengthComputable || event.total < 1e6;
        bar.value = event.loaded / event.total;
      };
      request.onload = () => {
        if (request.status === 202) resolve(request.response);
        else reject(new Refused(request.status, request.response || {}));
      };
      request.onerror = () => reject(new Error("the service cannot be reached, or ended the upload"));
      request.onloadend = () => { bar.hidden = true; };
      leave.signal.addEventListener("abort", () => request.abort());
      request.send(body);
    });
  }

  // --- one run --------------------------------------------------------------------------------

  async function showRun(id, query, layer) {
    const run = await json(api(id));
    head(run.name);
    if (run.state === "done") return showDone(run, query, layer);
    if (["failed", "cancelled"].includes(run.state)) return showEnded(run);
    return showLive(run);
  }

  function back() {
    return make("a", { class: "button", href: "#" }, "← All runs");
  }

  async function readOnly() {
    return (await json("/v1/places")).read_only;
  }

  async function showEnded(run) {
    const actions = runActions(run, await readOnly(), () => { location.hash = ""; });
    actions.prepend(back());
    actions.className = "bar";
    const why = run.error ? make("p", { class: "problem" }, ...sentences({ message: run.error.error, hint: run.error.hint })) : null;
    main.replaceChildren(...[
      actions, make("p", {}, state(run.state), " ", what(run)), why, make("div", { class: "panel" }, logOf(run.id)),
    ].filter(Boolean));
  }

  async function showLive(run) {
    const bar = progressBar();
    const actions = runActions(run, await readOnly(), route);
    actions.prepend(back());
    actions.className = "bar";
    const badge = make("span", {}, state(run.state));
    const units = make("ul", { class: "units", "aria-label": "Labels as they come" });
    let labels = 0;
    const log = logOf(run.id, {
      progress: (data) => bar.show(data),
      state: (data) => {
        badge.replaceChildren(state(data.state));
        if (data.state !== "running") bar.show(null);
      },
      label: (data) => {
        labels += 1;
        tell(count(labels, "label"));
        units.prepend(make("li", {}, unitLine(run.id, { ...data, layer_name: data.layer }, false)));
        if (units.children.length > 200) units.lastChild.remove();
      },
      end: route,
    });
    bar.show(run.progress);
    main.replaceChildren(actions, make("p", {}, badge, " ", what(run)), bar.node,
      make("div", { class: "panel" }, log), units);
  }

  /** What was told of a run, followed as it comes. */
  function logOf(id, listeners = {}) {
    const log = make("ol", { class: "log", "aria-label": "What was told", tabindex: "0" });
    const say = (name, text) => {
      const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 8;
      log.append(make("li", {}, make("b", {}, name), " ", text));
      if (atEnd) log.scrollTop = log.scrollHeight;
    };
    const view = leave;
    follow(api(id, "events"), leave.signal, (kind, data) => {
      if (view.signal.aborted) return;
      if (kind === "choice") say(`${data.what}:`, data.text);
      if (kind === "note") say("", data.text);
      if (kind === "state") say("", [data.state, data.why || data.error?.error].filter(Boolean).join(": "));
      listeners[kind]?.(data);
    });
    return log;
  }

  async function showDone(run, query, layer) {
    const about = await json(api(run.id, "about"));
    head(run.name, `${count(run.summary.units, "unit")} of ${count(run.summary.layers, "layer")}: ${run.summary.described} described, ${run.summary.abstained} abstained.`);
    const bar = runActions(run, await readOnly(), () => { location.hash = ""; });
    bar.className = "bar";
    bar.prepend(back());
    bar.append(...["jsonl", "csv"].map((kind) => download(run, kind)));
    const facts = make("dl", { class: "facts" },
      Object.entries(about.facts).map(([name, text]) => make("div", {}, make("dt", {}, name), make("dd", {}, text))));
    const warnings = about.warnings.length
      ? make("ul", { class: "warnings" }, about.warnings.map((text) => make("li", {}, text))) : null;
    const more = make("details", { class: "panel" }, make("summary", {}, "What was run on what"),
      make("div", { class: "inside" }, [facts, warnings].filter(Boolean)));
    main.replaceChildren(bar, more, ...(await searchOf(run, about, query, layer)));
  }

  function download(run, kind) {
    return make("button", {
      type: "button",
      class: "hide-small",
      onclick: async () => {
        try {
          const data = await (await ask(`${api(run.id, "labels")}?format=${kind}`)).blob();
          const href = URL.createObjectURL(data);
          make("a", { href, download: `labels-${run.id}.${kind}` }).click();
          setTimeout(() => URL.revokeObjectURL(href), 10_000);
        } catch (error) {
          complain(error);
        }
      },
    }, `Labels (${kind})`);
  }

  async function searchOf(run, about, query, layer) {
    const input = make("input", { type: "search", id: "query", value: query, placeholder: "Search labels, such as: red dots", "aria-label": "Search labels", autocomplete: "off" });
    const select = make("select", { id: "layer", "aria-label": "Layer" },
      make("option", { value: "" }, "All layers"),
      about.layers.map((one) => make("option", { value: one.layer, selected: one.layer === layer }, `${one.name} (${one.units})`)));
    const output = make("output", { for: "query" });
    const units = make("ul", { class: "units", "aria-label": "Units" });
    const more = make("button", { type: "button", hidden: true }, "More");
    let asked = 0;
    const look = async (offset) => {
      const mine = ++asked;
      const words = new URLSearchParams({ query: input.value, layer: select.value, offset, limit: UNITS });
      const found = await json(`${api(run.id, "units")}?${words}`);
      if (mine !== asked) return;
      output.textContent = count(found.total, "unit");
      const lines = found.units.map((unit) => make("li", {}, unitLine(run.id, unit, true)));
      if (offset) units.append(...lines);
      else units.replaceChildren(...(lines.length ? lines : [make("li", { class: "empty" }, "No label says that.")]));
      more.hidden = offset + found.units.length >= found.total;
      more.onclick = () => look(offset + UNITS).then(() => lines.length && units.children[offset + UNITS]?.firstChild.focus()).catch(complain);
    };
    let timer = null;
    const changed = () => {
      clearTimeout(timer);
      timer = setTimeout(() => {
        searched.set(run.id, address("run", run.id, input.value, select.value));
        history.replaceState(null, "", searched.get(run.id));
        look(0).catch(complain);
      }, TYPING_MS);
    };
    input.addEventListener("input", changed);
    select.addEventListener("change", changed);
    await look(0);
    return [make("search", { class: "find" }, input, select, output), units, make("p", { class: "pager" }, more)];
  }

  function unitLine(id, unit, linked) {
    const none = unit.description === null;
    const flags = unit.flags.map((flag) => make("span", { class: "flag" }, flag));
    const said = make("span", { class: saidClass(unit) }, none ? "nothing to describe" : unit.description);
    const also = unit.candidate ? make("span", { class: "also" }, ` also: ${unit.candidate} `) : null;
    const parts = [
      make("span", { class: "number" }, String(unit.unit)),
      make("span", {}, [said, " ", also, ...flags].filter(Boolean)),
      make("span", { class: "where" }, none ? unit.layer_name : `${unit.layer_name} · ${scoreText(unit)}`),
    ];
    return make("a", linked ? { href: address("unit", id, unit.layer, unit.unit) } : {}, parts);
  }

  /** What is shown of a label at first sight: its confidence or, where it has none, its PMI. */
  const scoreText = (unit) =>
    unit.confidence === null ? `PMI ${rounded(unit.pmi)}` : `confidence ${percent(unit.confidence)}`;

  const saidClass = (unit) =>
    unit.description === null ? "said none" : unit.flags.includes("abstained") ? "said abstained" : "said";

  // --- one unit -------------------------------------------------------------------------------

  async function showUnit(id, layer, number) {
    const [run, about, unit] = await Promise.all(
      [api(id), api(id, "about"), api(id, "units", layer, number)].map((path) => json(path)));
    const units = about.layers.find((one) => one.layer === unit.layer)?.units ?? 0;
    head(`Unit ${unit.unit} of ${unit.layer_name}`, run.name);
    const figure = (name, text) => make("span", {}, `${name} `, make("b", {}, text));
    const score = (name, value) => figure(name, rounded(value));
    const scores = unit.confidence === null
      ? [score("PMI", unit.pmi), score("log p(d|E)", unit.log_p_given_exemplars), score("log p(d)", unit.log_p)]
      : [figure("confidence", percent(unit.confidence))];
    if (unit.validity) {
      scores.push(score("validity", unit.validity.correlation), score("shuffled", unit.validity.shuffled_correlation));
    }
    scores.push(...unit.flags.map((flag) => make("span", { class: "flag" }, flag)));
    const images = make("ul", { class: "strip", "aria-label": "Exemplars" },
      unit.exemplars.map((exemplar, rank) => make("li", {}, exemplarFigure(exemplar, rank))));
    const near = (step, label, key) =>
      make("a", { class: "button", href: address("unit", id, layer, unit.unit + step), "data-key": key, hidden: unit.unit + step < 0 || unit.unit + step >= units }, label);
    main.replaceChildren(
      make("nav", { class: "bar", "aria-label": "Units" },
        make("a", { class: "button", href: searched.get(id) || address("run", id), "data-key": "Escape" }, "← All units"),
        near(-1, "Previous", "k"), near(1, "Next", "j")),
      make("article", { class: "unit-view" },
        make("p", { class: saidClass(unit) }, unit.description ?? "nothing to describe"),
        make("p", { class: "scores" }, scores),
        images,
        unit.candidates.length ? candidates(unit.candidates) : null,
        make("p", { class: "hint hide-small" }, make("kbd", {}, "j"), " and ", make("kbd", {}, "k"),
          ": next and previous unit; ", make("kbd", {}, "Esc"), ": all units; a click on a photo shows it without its mask.")));
  }

  /** The n-best with their scores; a click away where confidences say what matters. */
  function candidates(list) {
    const sure = list.some((one) => one.confidence !== null);
    const names = ["Candidate", ...(sure ? ["confidence"] : []), "PMI", "log p(d|E)", "log p(d)"];
    const texts = (one) => [
      ...(sure ? [percent(one.confidence)] : []),
      ...[one.pmi, one.log_p_given_exemplars, one.log_p].map((value) => rounded(value)),
    ];
    const table = make("div", { class: "table" }, make("table", {},
      make("thead", {}, make("tr", {}, names.map((name) => make("th", { scope: "col" }, name)))),
      make("tbody", {}, list.map((one) =>
        make("tr", {}, make("td", {}, one.description), texts(one).map((text) => make("td", {}, text)))))));
    return sure ? make("details", { class: "more" }, make("summary", {}, "Candidates and scores"), table) : table;
  }

  function exemplarFigure(exemplar, rank) {
    const image = make("img", { alt: `Exemplar ${rank + 1}: ${exemplar.name}`, decoding: "async" });
    const button = make("button", { type: "button", "aria-pressed": "true", title: exemplar.name }, image);
    const load = async (path) => {
      const data = await (await ask(path)).blob();
      const old = image.src;
      image.src = URL.createObjectURL(data);
      if (old) URL.revokeObjectURL(old);
      leave.signal.addEventListener("abort", () => URL.revokeObjectURL(image.src), { once: true });
    };
    const failed = (error) => {
      if (error.name !== "AbortError") button.replaceWith(make("div", { class: "gone" }, error.message));
    };
    button.addEventListener("click", () => {
      const masked = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(masked));
      load(masked ? exemplar.masked : exemplar.photo).catch(failed);
    });
    load(exemplar.masked).catch(failed);
    const activation = exemplar.activation === null ? "–" : String(Number(exemplar.activation.toPrecision(3)));
    return make("figure", {}, button,
      make("figcaption", {}, make("span", {}, exemplar.name), make("b", {}, activation)));
  }

  // --- which view -----------------------------------------------------------------------------

  async function route() {
    leave.abort();
    leave = new AbortController();
    complain(null);
    const [view = "", ...rest] = location.hash.slice(1).split("/").map((part) => {
      try {
        return decodeURIComponent(part);
      } catch {
        return part;
      }
    });
    try {
      if (view === "run" && rest[0]) await showRun(rest[0], rest[1] || "", rest[2] || "");
      else if (view === "unit" && rest.length === 3) await showUnit(...rest);
      else await showRuns(view === "runs" ? Number(rest[0]) || 0 : 0);
    } catch (error) {
      if (error.name === "AbortError") return;
      head("Not to be shown");
      main.replaceChildren(make("p", { class: "bar" }, back()));
      complain(error);
    }
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, dialog *")) return;
    if (event.key === "/") {
      const input = element("query");
      if (input) {
        event.preventDefault();
        input.focus();
      }
      return;
    }
    main.querySelector(`[data-key="${CSS.escape(event.key)}"]:not([hidden])`)?.click();
  });
  element("forget").hidden = !sessionStorage.getItem("token");
  element("forget").addEventListener("click", () => {
    sessionStorage.removeItem("token");
    location.hash = "";
    location.reload();
  });
  element("home").addEventListener("click", () => { location.hash = ""; });
  addEventListener("hashchange", () => {
    route().then(() => element("title").focus({ preventScroll: false }));
  });
  route();
})();
