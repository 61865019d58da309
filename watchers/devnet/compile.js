// Compiles <sources>/*.sol into <output>/<Contract>.json {abi, bytecode}: the devnet's contracts, or others' by
// `node compile.js [output folder [sources folder [EVM version]]]`. store/contracts is `paris`: it runs on any chain.
// Settings are fixed and no metadata is appended, so that the same sources give the same bytes on every machine.
"use strict";

const fs = require("node:fs");
const path = require("node:path");
const solc = require("solc");

const output = process.argv[2] || path.join(__dirname, "artifacts");
const sources = process.argv[3] || path.join(__dirname, "contracts");
const evmVersion = process.argv[4] || "cancun";

const names = fs.readdirSync(sources).filter((name) => name.endsWith(".sol")).sort();
const input = {
  language: "Solidity",
  sources: Object.fromEntries(
    names.map((name) => [name, { content: fs.readFileSync(path.join(sources, name), "utf8") }]),
  ),
  settings: {
    evmVersion,
    optimizer: { enabled: true, runs: 200 },
    viaIR: true,
    metadata: { bytecodeHash: "none", appendCBOR: false },
    outputSelection: { "*": { "*": ["abi", "evm.bytecode.object"] } },
  },
};

const compiled = JSON.parse(solc.compile(JSON.stringify(input)));
const problems = compiled.errors || [];
for (const problem of problems) process.stderr.write(problem.formattedMessage + "\n");
if (problems.length > 0) process.exit(1); // a warning in so small a code base is a mistake

fs.mkdirSync(output, { recursive: true });
for (const name of names) {
  const contract = path.basename(name, ".sol");
  const { abi, evm } = compiled.contracts[name][contract];
  const artifact = { abi, bytecode: "0x" + evm.bytecode.object };
  fs.writeFileSync(path.join(output, contract + ".json"), JSON.stringify(artifact, null, 1) + "\n");
}
