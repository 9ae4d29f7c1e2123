/** The frame of the page: where one can go, the key that the gateway wants, and the keys of the keyboard. */

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { hasKey, onUnauthenticated, setKey } from "./api";
import { useKeys } from "./keys";
import { ModelsPage } from "./models";
import { QualityPage } from "./quality";
import { useRoute, type Route } from "./route";
import { ScanPage } from "./scan";
import { Upload } from "./upload";
import { Dialog, Notice } from "./widgets";
import { Worklist } from "./worklist";

const PAGES: { hash: string; page: Route["page"]; title: string }[] = [
  { hash: "#/", page: "worklist", title: "Worklist" },
  { hash: "#/models", page: "models", title: "Models" },
  { hash: "#/quality", page: "quality", title: "Quality" },
];

const HELP: [string, string][] = [
  ["j k", "next, previous scan"],
  ["Enter", "open the scan"],
  ["/", "search, or write a comment"],
  ["Escape", "back"],
  ["c", "confirm the mask"],
  ["r", "reject the mask"],
  ["m u", "show or hide mask, uncertainty"],
  ["x", "go to the most uncertain voxel"],
  ["0 1 2 3 4", "all planes, axial, coronal, sagittal, 3-D"],
  ["w q l", "models, quality, worklist"],
  ["?", "this list"],
];

export function App(): JSX.Element {
  const route = useRoute();
  const [asking, setAsking] = useState(false);
  const [helping, setHelping] = useState(false);
  const [session, setSession] = useState(0);
  useEffect(() => onUnauthenticated(() => setAsking(true)), []);
  useKeys({
    "?": () => setHelping(true),
    l: () => (location.hash = "#/"),
    w: () => (location.hash = "#/models"),
    q: () => (location.hash = "#/quality"),
  });
  const leave = () => {
    setKey(null);
    setSession(session + 1);
  };
  return (
    <>
      <header class="top">
        <a class="brand" href="#/">
          ncagate <span>review</span>
        </a>
        <nav aria-label="Pages">
          {PAGES.map((one) => (
            <a key={one.hash} href={one.hash} aria-current={active(route, one.page) ? "page" : undefined}>
              {one.title}
            </a>
          ))}
        </nav>
        <span class="disclaimer">Research, not a medical device</span>
        <Upload key={session} />
        <button type="button" class="quiet" onClick={() => setHelping(true)} aria-label="Keyboard help">
          ?
        </button>
        {hasKey() && (
          <button type="button" class="quiet" onClick={leave}>
            Forget key
          </button>
        )}
      </header>
      <main key={session}>
        <Page route={route} />
      </main>
      {asking && (
        <KeyDialog
          onDone={() => {
            setAsking(false);
            setSession(session + 1);
          }}
        />
      )}
      {helping && (
        <Dialog title="Keyboard" onClose={() => setHelping(false)}>
          <dl class="keys">
            {HELP.map(([key, meaning]) => (
              <div key={key}>
                <dt>
                  {key.split(" ").map((one) => (
                    <kbd key={one}>{one}</kbd>
                  ))}
                </dt>
                <dd>{meaning}</dd>
              </div>
            ))}
          </dl>
        </Dialog>
      )}
    </>
  );
}

function active(route: Route, page: Route["page"]): boolean {
  return route.page === page || (route.page === "job" && page === "worklist");
}

function Page({ route }: { route: Route }): JSX.Element {
  switch (route.page) {
    case "worklist":
      return <Worklist />;
    case "job":
      return <ScanPage key={route.id} id={route.id} />;
    case "models":
      return <ModelsPage />;
    case "quality":
      return <QualityPage />;
  }
}

function KeyDialog({ onDone }: { onDone: () => void }): JSX.Element {
  const [text, setText] = useState("");
  const refused = hasKey();
  const submit = (event: Event) => {
    event.preventDefault();
    setKey(text.trim() || null);
    onDone();
  };
  return (
    <Dialog title="This gateway wants a key" onClose={onDone}>
      <form onSubmit={submit}>
        {refused && <Notice>The key was not taken.</Notice>}
        <label>
          API key or token
          <input
            type="password"
            name="key"
            autocomplete="off"
            autofocus
            value={text}
            onInput={(event) => setText(event.currentTarget.value)}
          />
        </label>
        <p class="faint">It is kept in this tab until it is closed, and sent to this gateway only.</p>
        <button type="submit" class="primary" disabled={!text.trim()}>
          Go on
        </button>
      </form>
    </Dialog>
  );
}
