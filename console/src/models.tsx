/** Models, their versions, what was measured of them, and which one an alias means. */

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { getJson, sendJson, type Problem } from "./api";
import { figure, moment, percent, words } from "./format";
import type { Manifest, Model } from "./types";
import { Dialog, Notice } from "./widgets";

const PRODUCTION = "production";

export function ModelsPage(): JSX.Element {
  const [models, setModels] = useState<Model[] | null>(null);
  const [problem, setProblem] = useState<Problem | null>(null);
  const read = () => getJson<{ models: Model[] }>("/models").then((page) => setModels(page.models), setProblem);
  useEffect(() => void read(), []);
  return (
    <div class="page">
      {problem && <Notice>{problem.message}</Notice>}
      {models?.map((model) => (
        <ModelCard key={model.name} model={model} onChange={read} />
      ))}
    </div>
  );
}

function ModelCard({ model, onChange }: { model: Model; onChange: () => void }): JSX.Element {
  const [asked, setAsked] = useState<{ title: string; act: () => Promise<unknown> } | null>(null);
  const [problem, setProblem] = useState<Problem | null>(null);
  const home = `/models/${encodeURIComponent(model.name)}`;
  const act = () => {
    setProblem(null);
    asked?.act().then(onChange, setProblem);
    setAsked(null);
  };
  const promote = (version: string) =>
    setAsked({
      title: `Let ${PRODUCTION} mean ${version}?`,
      act: () => sendJson("PUT", `${home}/aliases/${PRODUCTION}`, { version }),
    });
  const rollBack = () =>
    setAsked({
      title: `Let ${PRODUCTION} mean its version before?`,
      act: () => sendJson("POST", `${home}/aliases/${PRODUCTION}/rollback`),
    });
  const names = (version: string) => Object.entries(model.aliases ?? {}).filter(([, one]) => one === version).map(([alias]) => alias);
  return (
    <section class="card" aria-label={`Model ${model.name}`}>
      <header class="row">
        <h2 class="name">{model.name}</h2>
        <button type="button" onClick={rollBack}>
          Roll back
        </button>
      </header>
      {problem && <Notice>{problem.message}</Notice>}
      {[...model.versions].reverse().map((one) => (
        <div class="version" key={one.version}>
          <header class="row">
            <h3>{one.version}</h3>
            {names(one.version).map((alias) => (
              <span class="alias" key={alias}>
                {alias}
              </span>
            ))}
            {!one.usable && <strong>damaged</strong>}
            {one.usable && !names(one.version).includes(PRODUCTION) && (
              <button type="button" onClick={() => promote(one.version)}>
                Promote
              </button>
            )}
          </header>
          {one.usable && <Version model={model.name} version={one.version} />}
        </div>
      ))}
      {asked && (
        <Dialog title={asked.title} onClose={() => setAsked(null)}>
          <p>Scans sent from now on are segmented with it; jobs that were sent before keep their version.</p>
          <button type="button" class="primary" onClick={act}>
            Yes
          </button>
        </Dialog>
      )}
    </section>
  );
}

function Version({ model, version }: { model: string; version: string }): JSX.Element | null {
  const [manifest, setManifest] = useState<Manifest | null>(null);
  useEffect(() => {
    const path = `/models/${encodeURIComponent(model)}/versions/${encodeURIComponent(version)}`;
    getJson<Manifest>(path).then(setManifest, () => undefined);
  }, []);
  if (!manifest) return null;
  const { calibration, contract } = manifest;
  return (
    <>
      <p>{manifest.intended_use}</p>
      <p class="faint">
        {manifest.segments.map((one) => one.name).join(", ")} · {manifest.parameters.toLocaleString()} parameters ·{" "}
        {contract.modalities.join(", ")} · made {moment(manifest.created)} · {manifest.licence}
      </p>
      <p class="faint">{manifest.attribution}</p>
      <p>
        Calibrated on {calibration.outcomes} outcomes of {calibration.data}; accepts at most {percent(calibration.alpha, 0)}{" "}
        masks below Dice {calibration.min_dice}.
      </p>
      {Object.entries(manifest.metrics).map(([kind, structures]) => (
        <Metrics key={kind} kind={kind} structures={structures} />
      ))}
    </>
  );
}

function Metrics(props: { kind: string; structures: Manifest["metrics"][string] }): JSX.Element {
  const rows = Object.entries(props.structures).flatMap(([structure, conditions]) =>
    Object.entries(conditions)
      .filter(([, one]) => one.outcomes !== undefined)
      .sort(([a], [b]) => order(a) - order(b))
      .map(([condition, one]) => ({ structure, condition, one })),
  );
  return (
    <details>
      <summary>{words(props.kind)}</summary>
      <div class="scroll">
        <table>
          <thead>
            <tr>
              {["Structure", "Condition"].map((one) => (
                <th scope="col" key={one}>{one}</th>
              ))}
              {["Outcomes", "Dice", "Failures", "Found", "False alarms", "Risk of accepted"].map((one) => (
                <th scope="col" class="number" key={one}>{one}</th>
              ))}
            </tr>
          </thead>
          <tbody>
            {rows.map(({ structure, condition, one }) => (
              <tr key={`${structure} ${condition}`}>
                <td>{structure}</td>
                <td>{words(condition)}</td>
                <td class="number">{one.outcomes}</td>
                <td class="number">{figure(one.dice_mean, 3)} ± {figure(one.dice_sd, 3)}</td>
                <td class="number">{one.failures}</td>
                <td class="number">{one.detected} ({percent(one.detected_share)})</td>
                <td class="number">{one.false_positives} of {one.passes}</td>
                <td class="number">{percent(one.risk)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </details>
  );
}

/** Clean scans first, all together last. */
function order(condition: string): number {
  return condition === "clean" ? 0 : condition === "all" ? 2 : 1;
}
