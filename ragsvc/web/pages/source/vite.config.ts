import { defineConfig } from "vite";

// Asset URLs are relative to the file that names them, so the pages work below any path; ragsvc completes those of
// index.html. Nothing is inlined: the Content-Security-Policy allows files of this origin only.
export default defineConfig({
  base: "./",
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    outDir: process.env["PAGES_OUT"] ?? "../static",
    emptyOutDir: true,
    assetsDir: "assets",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: "es2022",
    sourcemap: false,
    reportCompressedSize: false,
  },
  server: {
    port: 5173,
    proxy: { "/v1": process.env["RAGSVC_URL"] ?? "http://127.0.0.1:8080" },
  },
});
