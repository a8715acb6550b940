// The page shows the answer that its address names behind the #, from the first
// word. So a reload, a second tab and the Back button need no code of their own.

const SILENCE = 5_000; // milliseconds until an answer without a word is remarked on
const PAUSE = 3_000; // milliseconds before the page asks again for what was refused

const STATES = {
  connecting: "Connecting…",
  waiting: "Waiting…",
  writing: "Writing…",
  reconnecting: "Reconnecting…",
  complete: "Complete",
  stopped: "Stopped",
  gone: "Not there",
};
const NOTES = {
  silent: "No word has come yet. If none comes, the server has forgotten this answer, or never had it.",
  gap: "Where you see […], words are missing that the server no longer had.",
  gone: "The server has nothing of this answer any more, or is not there itself. Reload the page to try again.",
};

const byId = (id) => document.getElementById(id);

let leave = () => {}; // stops following the answer that is on the page

byId("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  const response = await post("/ask", new FormData(event.target));
  if (!response) return;
  event.target.reset();
  location.hash = (await response.json()).answer;
});
byId("stop").addEventListener("click", () => post("/stop", { answer: location.hash.slice(1) }));
addEventListener("hashchange", show);
show();

function show() {
  leave();
  const id = location.hash.slice(1);
  byId("asked").textContent = "";
  byId("text").replaceChildren();
  setNote("");
  setState("none");
  leave = id ? follow(id) : () => {};
}

// follow shows an answer from its first word to its end, and returns a function
// that stops doing so.
function follow(id) {
  let begun = false; // something of the answer has come
  let complete = false;

  // since=earliest is for the first connection. When it drops, the browser comes
  // back with the id of the last event it got, in the header Last-Event-ID, and
  // that wins. So words are neither lost nor shown twice, and nothing here has
  // to look for doubles.
  const source = new EventSource(`/events?since=earliest&answer=${encodeURIComponent(id)}`);
  setState("connecting");
  let timer = setTimeout(() => setNote("silent"), SILENCE);

  source.addEventListener("hub:open", ({ data }) => {
    setState(begun ? "writing" : "waiting");
    if (JSON.parse(data).resume === "reset") addGap();
  });
  source.addEventListener("hub:reset", addGap);

  source.addEventListener("question", ({ data }) => {
    begin();
    byId("asked").textContent = data;
  });
  source.addEventListener("message", ({ data }) => {
    if (!begun) addGap(); // the question comes first, if it is still there
    begin();
    addWord(data);
  });
  source.addEventListener("done", () => {
    begin();
    complete = true;
  });

  // The channel has ended, so nothing can follow. A page that does not close
  // here is closed by the server, comes back, and is answered 204 No Content,
  // upon which an EventSource stops by itself.
  source.addEventListener("hub:end", () => {
    source.close();
    finish(complete ? "complete" : "stopped");
  });

  // The connection dropped. EventSource is on its way back, unless it was
  // answered anything but a stream. That is 204 if just hub:end was missed, a
  // 502 of some proxy, or 204 if nothing of the answer is kept any more.
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CONNECTING) setState("reconnecting");
    else if (complete) finish("complete");
    else if (begun) startOver();
    else finish("gone");
  });

  function begin() {
    if (begun) return;
    begun = true;
    silenceOver();
    setState("writing");
  }

  function startOver() {
    setState("reconnecting");
    timer = setTimeout(show, PAUSE);
  }

  function finish(state) {
    silenceOver();
    setState(state);
    if (state in NOTES) setNote(state);
  }

  function silenceOver() {
    clearTimeout(timer);
    if (byId("note").dataset.note === "silent") setNote("");
  }

  return () => {
    clearTimeout(timer);
    source.close();
  };
}

function addWord(word) {
  const span = document.createElement("span");
  span.textContent = word;
  byId("text").append(span);
}

function addGap() {
  if (byId("text").lastElementChild?.matches("mark")) return; // one is enough
  const gap = document.createElement("mark");
  gap.textContent = "[…] ";
  byId("text").append(gap);
  setNote("gap");
}

function setNote(note) {
  byId("note").dataset.note = note;
  byId("note").textContent = NOTES[note] ?? "";
  byId("note").hidden = !note;
}

function setState(state) {
  byId("answer").dataset.state = state;
  byId("status").textContent = STATES[state] ?? "";
  // A screen reader reads the words when they are all there, not one by one.
  byId("text").ariaBusy = ["writing", "reconnecting"].includes(state);
}

// post sends a form, and returns nothing if that failed, which the page tells.
async function post(path, fields) {
  const problem = byId("problem");
  problem.hidden = true;
  try {
    const response = await fetch(path, { method: "POST", body: new URLSearchParams(fields) });
    if (response.ok) return response;
    problem.textContent = (await response.text()) || `The server answered ${response.status}.`;
  } catch {
    problem.textContent = "The server is not there.";
  }
  problem.hidden = false;
}
