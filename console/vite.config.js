// The page is built into the gateway's own package, so that who runs it needs no Node.
import { createHash } from "node:crypto";
import { readFileSync, readdirSync, statSync } from "node:fs";
import { join, relative } from "node:path";
import { defineConfig } from "vite";

const here = import.meta.dirname;
const SOURCES = ["src", "index.html", "package.json", "package-lock.json", "tsconfig.json", "vite.config.js"];

/** Files below a path, sorted by name. */
function files(path) {
  if (!statSync(path).isDirectory()) return [path];
  return readdirSync(path).sort().flatMap((name) => files(join(path, name)));
}

/** SHA-256 over the names and contents of what the page is built from; tests/console compares it with the sources. */
function digest() {
  const sum = createHash("sha256");
  for (const file of SOURCES.flatMap((name) => files(join(here, name)))) {
    const content = createHash("sha256").update(readFileSync(file)).digest("hex");
    sum.update(`${relative(here, file).replaceAll("\\", "/")} ${content}\n`);
  }
  return sum.digest("hex").match(/.{8}/g).join(" "); // in words, as one of 64 digits looks like a secret
}

/** The licences of everything that ends up in the page. */
function licences() {
  const lock = JSON.parse(readFileSync(join(here, "package-lock.json"), "utf8"));
  const parts = Object.entries(lock.packages)
    .filter(([path, one]) => path.startsWith("node_modules/") && !one.dev && !one.optional)
    .map(([path, one]) => {
      const folder = join(here, path);
      const name = readdirSync(folder).find((file) => /^licen[sc]e/i.test(file));
      const text = name ? readFileSync(join(folder, name), "utf8").trim() : "";
      return `${path.replace(/^.*node_modules\//, "")} ${one.version} (${one.license})\n\n${text}`;
    });
  return `${parts.join(`\n\n${"-".repeat(78)}\n\n`)}\n`;
}

const record = {
  name: "record",
  generateBundle() {
    const source = `${JSON.stringify({ sources: digest() })}\n`;
    this.emitFile({ type: "asset", fileName: "build.json", source });
    this.emitFile({ type: "asset", fileName: "licences.txt", source: licences() });
  },
};

export default defineConfig({
  base: "/console/",
  plugins: [record],
  resolve: { alias: [{ find: /^numcodecs\/\w+$/, replacement: join(here, "src", "absent.ts") }] },
  build: {
    outDir: "../service/page",
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 4000,
    reportCompressedSize: false,
  },
});
