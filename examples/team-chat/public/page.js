// The page asks the backend who it is (/auth), and opens one stream of all that
// this user may hear. What was said before comes first, if it is still kept.

const PAUSE = 2_000; // milliseconds before the page asks again, when it was refused

const STATES = {
  connecting: "Connecting…",
  live: "Live",
  reconnecting: "Reconnecting…",
  out: "Logged out",
};

const byId = (id) => document.getElementById(id);

let me = null; // what /auth answered
let place = "team"; // the channel that is shown
let said = new Map(); // channel → messages
let unread = new Map(); // channel → how many came while another was shown
let source = null;
let timer = 0;
let starts = 0;

byId("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (!await post("/login", new FormData(event.target))) return;
  byId("password").value = "";
  start();
});
byId("logout").addEventListener("click", async () => {
  if (!await post("/logout", {})) return;
  me = null;
  start();
});
byId("say").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (await post("/say", { to: place, text: byId("text").value })) event.target.reset();
});
start();

// start begins anew, as whoever is logged in now.
async function start() {
  stop();
  setState("connecting");
  const number = ++starts;
  const answer = await whoAmI();
  if (number !== starts) return; // it was started again meanwhile
  if (!answer) {
    setState("reconnecting");
    timer = setTimeout(start, PAUSE);
  } else if (answer.status === 401) {
    logIn(me && answer.detail);
  } else {
    me = answer;
    said = new Map();
    unread = new Map();
    if (!places().includes(place)) place = places()[0];
    show();
    listen();
  }
}

function stop() {
  clearTimeout(timer);
  source?.close();
  source = null;
}

// whoAmI returns what the backend answers, or nothing if it is not there.
async function whoAmI() {
  try {
    const response = await fetch("/auth");
    return response.ok || response.status === 401 ? await response.json() : null;
  } catch {
    return null;
  }
}

function listen() {
  const query = new URLSearchParams({ since: "earliest" });
  for (const channel of me.channels) query.append("channel", channel);
  const stream = source = new EventSource(`/events?${query}`);

  stream.addEventListener("hub:open", ({ data }) => {
    setState("live");
    setProblem("");
    if (JSON.parse(data).resume === "reset") setProblem("Some messages are not kept any more.");
  });
  stream.addEventListener("hub:reset", () => setProblem("Some messages are not kept any more."));
  stream.addEventListener("say", ({ data }) => {
    const message = JSON.parse(data);
    const where = message.to === `user-${me.user}` ? `user-${message.from}` : message.to;
    if (!said.has(where)) said.set(where, []);
    said.get(where).push(message);
    if (where === place) addMessage(message);
    else if (message.at > me.at) count(where);
  });
  // The user may hear something else now, or has logged out in another tab. What
  // is replayed may be older than the answer that the page has.
  stream.addEventListener("changed", ({ data }) => {
    if (JSON.parse(data).at >= me.at) start();
  });

  // The connection dropped, and EventSource is on its way back. Or it was answered
  // anything but a stream, and has given up without telling the status: 401 if the
  // session has ended, 403 if a channel may not be heard any more, 502 if the
  // backend is away. So the page asks the backend again.
  stream.addEventListener("error", () => {
    if (stream !== source) return;
    setState("reconnecting");
    if (stream.readyState === EventSource.CLOSED) timer = setTimeout(start, PAUSE);
  });
}

function logIn(detail) {
  me = null;
  setState("out");
  setProblem(detail);
  byId("me").hidden = byId("chat").hidden = true;
  byId("login").hidden = false;
  byId("password").focus();
}

const places = () => [...me.rooms, ...me.people.map((name) => `user-${name}`)];
const title = (channel) => channel.startsWith("user-") ? `@ ${channel.slice(5)}` : `# ${channel}`;

// show draws all that depends on who is logged in and on the chosen place.
function show() {
  byId("login").hidden = true;
  byId("me").hidden = byId("chat").hidden = false;
  byId("user").textContent = me.user;
  byId("places").replaceChildren(...places().map(placeButton));
  byId("place").textContent = title(place);
  byId("text").placeholder = `Message to ${title(place)}`;
  byId("messages").replaceChildren();
  for (const message of said.get(place) ?? []) addMessage(message);
  byId("members").replaceChildren(...(me.members && place.startsWith("project-") ? me.people.map(memberButton) : []));
}

function placeButton(channel) {
  const button = document.createElement("button");
  button.dataset.channel = channel;
  button.dataset.unread = unread.get(channel) ?? "";
  button.ariaCurrent = String(channel === place);
  button.textContent = title(channel);
  button.addEventListener("click", () => {
    place = channel;
    unread.delete(channel);
    show();
    byId("text").focus();
  });
  return button;
}

function memberButton(name) {
  const member = me.members[place].includes(name);
  const button = document.createElement("button");
  button.dataset.name = name;
  button.ariaPressed = String(member);
  button.title = member ? `Remove ${name}` : `Add ${name}`;
  button.textContent = name;
  button.addEventListener("click", async () => {
    const problem = await post("/members", { user: name, room: place, member: !member }) ? "" : byId("problem").textContent;
    const answer = await whoAmI();
    if (answer?.user) me = answer;
    show();
    setProblem(problem);
  });
  return button;
}

function addMessage({ from, text, at }) {
  const [item, name, time, words] = ["li", "b", "time", "p"].map((tag) => document.createElement(tag));
  item.classList.toggle("mine", from === me.user);
  name.textContent = from;
  time.textContent = new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  words.textContent = text;
  item.append(name, time, words);
  byId("messages").append(item);
  byId("messages").scrollTop = byId("messages").scrollHeight;
}

function count(channel) {
  unread.set(channel, (unread.get(channel) ?? 0) + 1);
  const button = byId("places").querySelector(`[data-channel="${channel}"]`);
  if (button) button.dataset.unread = unread.get(channel);
}

function setState(state) {
  byId("status").dataset.state = state;
  byId("status").textContent = STATES[state];
}

function setProblem(detail) {
  byId("problem").textContent = detail ?? "";
  byId("problem").hidden = !detail;
}

// post sends a form, and reports whether that succeeded. If not, the page says
// why.
async function post(path, fields) {
  setProblem("");
  try {
    const response = await fetch(path, { method: "POST", body: new URLSearchParams(fields) });
    if (response.ok) return true;
    const problem = await response.json().catch(() => ({}));
    setProblem(problem.detail ?? `The server answered ${response.status}.`);
    if (response.status === 401 && me) start();
  } catch {
    setProblem("The server is not there.");
  }
  return false;
}
