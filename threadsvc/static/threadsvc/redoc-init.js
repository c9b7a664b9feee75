"use strict";

// System fonts: nothing on the page comes from another host.
const sans = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif";
const mono = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'Liberation Mono', monospace";

Redoc.init(
  "/openapi.json",
  {
    expandResponses: "200,404,422",
    theme: { typography: { fontFamily: sans, headings: { fontFamily: sans }, code: { fontFamily: mono } } },
  },
  document.getElementById("redoc"),
);
