"use strict";

// Swagger UI has dark colours. The page decides when to show them.
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();

// Shows the code samples of `x-codeSamples`, and the documented responses one status at a time. The response to a
// request that was sent is below its form.
const referencePlugin = ({ React }) => {
  const h = React.createElement;

  const Tabs = ({ label, names, chosen, choose }) =>
    h(
      "div",
      { className: "reference-tabs", role: "group", "aria-label": label },
      names.map((name) =>
        h("button", { key: name, type: "button", "aria-pressed": name === chosen, onClick: () => choose(name) }, name),
      ),
    );

  const CodeSamples = ({ samples, getComponent }) => {
    const [chosen, choose] = React.useState(samples[0].label);
    const { lang, source } = samples.find((sample) => sample.label === chosen);
    const code = { language: lang === "Shell" ? "bash" : lang.toLowerCase(), canCopy: true, getComponent };
    return h(
      React.Fragment,
      null,
      h("h4", null, "Code samples"),
      h(Tabs, { label: "Code samples", names: samples.map((sample) => sample.label), chosen, choose }),
      h(getComponent("HighlightCode", true), { key: chosen, ...code }, source),
    );
  };

  const withReference = (Responses) => (props) => {
    const { path, method, responses, tryItOutResponse, specSelectors, getComponent } = props;
    const statuses = responses.keySeq().toArray();
    const [chosen, choose] = React.useState(statuses[0]);
    const samples = specSelectors.specJson().getIn(["paths", path, method, "x-codeSamples"]).toJS();
    const documented = responses.filter((_, status) => status === chosen);
    return h(
      React.Fragment,
      null,
      tryItOutResponse &&
        h(
          "div",
          { className: "sent responses-inner" },
          h(getComponent("liveResponse"), { ...props, response: tryItOutResponse }),
        ),
      h(
        "div",
        { className: "reference" },
        h(CodeSamples, { samples, getComponent }),
        h("h4", null, "Responses"),
        h(Tabs, { label: "Responses", names: statuses, chosen, choose }),
        h(Responses, { ...props, responses: documented, tryItOutResponse: null }),
      ),
    );
  };

  // The list of servers has a heading, but no label for screen readers.
  const withLabel = (Servers) => (props) => {
    React.useEffect(() => document.getElementById("servers")?.setAttribute("aria-label", "Server"));
    return h(Servers, props);
  };

  // Swagger UI takes `_` in a link for a space, and writes an error to the console. Our operation ids have `_`.
  const followLink = (_, { layoutActions, layoutSelectors }) => (hash) => {
    const key = layoutSelectors.isShownKeyFromUrlHashArray(hash.replace(/^#\/?/, "").split("/"));
    layoutActions.show(key, true);
    layoutActions.scrollTo(key);
  };

  return {
    wrapComponents: {
      responses: withReference,
      Servers: withLabel,
      // A link inside of a button, which screen readers do not announce. The button itself sets the address.
      DeepLink: () => ({ text }) => h("span", null, text),
    },
    statePlugins: { layout: { wrapActions: { parseDeepLinkHash: followLink } } },
  };
};

// The code samples name the address of a service on this machine. Here they name this service.
fetch("/openapi.json")
  .then((response) => response.text())
  .then((text) =>
    SwaggerUIBundle({
      spec: JSON.parse(text.replaceAll("http://127.0.0.1:8000", location.origin)),
      dom_id: "#swagger-ui",
      deepLinking: true,
      tryItOutEnabled: true,
      displayRequestDuration: true,
      defaultModelsExpandDepth: -1, // /redoc shows the schemas
      validatorUrl: null,
      plugins: [referencePlugin],
    }),
  );
