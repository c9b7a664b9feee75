"use strict";

// System fonts: nothing on the page comes from another host.
const sans = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif";
const mono = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'Liberation Mono', monospace";

const typography = { fontFamily: sans, headings: { fontFamily: sans } };
const themes = {
  light: {
    typography: { ...typography, code: { fontFamily: mono } },
  },
  dark: {
    colors: {
      primary: { main: "#8cc7e3" },
      text: { primary: "#e6edf0", secondary: "#a9bac3" },
      border: { dark: "#45565f", light: "#32424b" },
      gray: { 50: "#1a242a", 100: "#222e35" },
      error: { main: "#ff9a94" },
      success: { main: "#7fd39b" },
      responses: {
        success: { color: "#7fd39b", backgroundColor: "#16281f", tabTextColor: "#7fd39b" },
        error: { color: "#ff9a94", backgroundColor: "#2d1d1f", tabTextColor: "#ff9a94" },
      },
    },
    typography: {
      ...typography,
      code: { fontFamily: mono, color: "#ffb3ae", backgroundColor: "#222e35" },
      links: { color: "#8cc7e3", visited: "#8cc7e3", hover: "#b7e0f3" },
    },
    sidebar: { backgroundColor: "#1a242a", textColor: "#e6edf0", activeTextColor: "#8cc7e3" },
    schema: { nestedBackground: "#1a242a", linesColor: "#6b7f8a", typeNameColor: "#a9bac3", typeTitleColor: "#a9bac3" },
    rightPanel: {
      backgroundColor: "#10171b",
      servers: {
        overlay: { backgroundColor: "#1a242a", textColor: "#e6edf0" },
        url: { backgroundColor: "#12191d" },
      },
    },
    codeBlock: { backgroundColor: "#1a242a" },
  },
};

const dark = window.matchMedia("(prefers-color-scheme: dark)");

// The code samples name the address of a service on this machine. Here they name this service.
fetch("/openapi.json")
  .then((response) => response.text())
  .then((text) => {
    const description = JSON.parse(text.replaceAll("http://127.0.0.1:8000", location.origin));
    const show = () => {
      const page = document.createElement("div");
      document.getElementById("redoc").replaceChildren(page);
      const theme = dark.matches ? themes.dark : themes.light;
      Redoc.init(description, { jsonSamplesExpandLevel: "all", theme }, page);
    };
    dark.addEventListener("change", show);
    show();
  });
