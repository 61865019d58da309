// One user's client for the demo and the tests: the official socket.io-client, told what to do on stdin, one JSON line
// on stdout for each thing that happens to it. `node listen.js URL`; the first line on stdin is the access token.
//
// Commands: `cut` drops the transport, the client comes back by itself after a second; `cut hold` drops it and stays
// away until `back`; `token T` renews the session with another access token; `emit {"event", "args"}`; `quit`.
// Lines: {at, kind: "connect", sid, recovered} | {at, kind: "disconnect", reason} | {at, kind: "connect_error", message,
// problem} | {at, kind: "event", name, payload, offset} | {at, kind: "ack", name, answer}; `at` in ms since 1970.
"use strict";

const readline = require("node:readline");
const { io } = require("socket.io-client");

const RECONNECT_MS = 1000;
const say = (kind, fields) => {
  const at = performance.timeOrigin + performance.now(); // Date.now() has no fractions of a millisecond
  process.stdout.write(JSON.stringify({ at, kind, ...fields }) + "\n");
};

let token = null;
const socket = io(process.argv[2], {
  auth: (give) => give({ token }),
  transports: ["websocket"],
  autoConnect: false,
  reconnectionDelay: RECONNECT_MS,
  randomizationFactor: 0,
});

socket.on("connect", () => say("connect", { sid: socket.id, recovered: socket.recovered }));
socket.on("disconnect", (reason) => say("disconnect", { reason }));
socket.on("connect_error", (error) => say("connect_error", { message: error.message, problem: error.data ?? null }));
socket.onAny((name, payload, offset) => say("event", { name, payload, offset: offset ?? null }));

const emit = (name, ...args) => socket.emit(name, ...args, (answer) => say("ack", { name, answer: answer ?? null }));

const commands = {
  cut(how) {
    socket.io.reconnection(how !== "hold");
    socket.io.engine.close();
  },
  back() {
    socket.io.reconnection(true);
    socket.connect();
  },
  token(fresh) {
    token = fresh;
    if (socket.connected) emit("renew", { token });
  },
  emit(json) {
    const { event, args } = JSON.parse(json);
    emit(event, ...args);
  },
  quit() {
    socket.close();
    process.exit(0);
  },
};

readline
  .createInterface({ input: process.stdin })
  .on("line", (line) => {
    if (token === null) {
      token = line;
      socket.connect();
      return;
    }
    const [name, ...rest] = line.split(" ");
    commands[name](rest.join(" "));
  })
  .on("close", commands.quit); // the parent is gone
