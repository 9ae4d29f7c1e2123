/** Small pieces that several pages show. */

import type { ComponentChildren, JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import type { Decision, Job, Standing, Verdict } from "./types";

const PATHS = {
  accept: "M3 8.5l3.2 3.2L13 4.8",
  flag: "M4 14V2.5h8l-2 3 2 3H4",
  wait: "M8 4v4l2.6 1.8M8 1.8a6.2 6.2 0 100 12.4A6.2 6.2 0 008 1.8z",
  stop: "M4.5 4.5l7 7m0-7l-7 7",
  person: "M8 8a2.8 2.8 0 100-5.6A2.8 2.8 0 008 8zm-5 6c.4-3 2.3-4.4 5-4.4s4.6 1.4 5 4.4",
};

export function Icon({ name }: { name: keyof typeof PATHS }): JSX.Element {
  return (
    <svg class="icon" viewBox="0 0 16 16" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}

export function VerdictMark({ verdict }: { verdict: Verdict }): JSX.Element {
  return (
    <span class={`mark ${verdict}`}>
      <Icon name={verdict} /> {verdict === "flag" ? "Flag" : "Accept"}
    </span>
  );
}

/** The verdict, or how far the job is. */
export function StateMark({ job }: { job: Job }): JSX.Element {
  if (job.verdict) return <VerdictMark verdict={job.verdict} />;
  if (job.state === "failed" || job.state === "cancelled")
    return (
      <span class="mark ended" title={job.error?.detail}>
        <Icon name="stop" /> {job.state === "failed" ? "Failed" : "Cancelled"}
      </span>
    );
  return (
    <span class="mark waiting">
      <Icon name="wait" /> {job.state === "queued" ? "Queued" : `${job.stage || "running"} ${Math.round(100 * job.progress)} %`}
    </span>
  );
}

const DECISIONS: Record<Decision, string> = { confirm: "Confirmed", reject: "Rejected", comment: "Comment" };

export function decisionWord(decision: Decision): string {
  return DECISIONS[decision];
}

export function ReviewMark({ review }: { review: Standing | null | undefined }): JSX.Element {
  if (!review) return <span class="faint">–</span>;
  return (
    <span class={`mark ${review.decision}`} title={`by ${review.reviewer || review.client}`}>
      <Icon name="person" /> {DECISIONS[review.decision]}
    </span>
  );
}

/** Predicted Dice as a dot, its interval as a bar, what was required as a tick, from 0 to 1. */
export function DiceBar({ job }: { job: Job }): JSX.Element | null {
  if (job.predicted_dice === null || job.predicted_dice === undefined) return null;
  const [low, high] = job.dice_interval ?? [job.predicted_dice, job.predicted_dice];
  return (
    <svg class="dicebar" viewBox="0 0 100 12" preserveAspectRatio="none" aria-hidden="true">
      <path class="track" d="M0 6H100" />
      <path class="range" d={`M${100 * low} 6H${100 * high}`} />
      {job.required_dice !== null && job.required_dice !== undefined && (
        <path class="need" d={`M${100 * job.required_dice} 0V12`} />
      )}
      <path class="value" d={`M${100 * job.predicted_dice} 2V10`} />
    </svg>
  );
}

export function Notice({ children, kind = "error" }: { children: ComponentChildren; kind?: "error" | "info" }): JSX.Element {
  return (
    <p class={`notice ${kind}`} role={kind === "error" ? "alert" : "status"}>
      {children}
    </p>
  );
}

/** A modal dialog that opens with its element and closes with Escape or a click beside it. */
export function Dialog(props: { title: string; onClose: () => void; children: ComponentChildren }): JSX.Element {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    dialog.current?.showModal();
    return () => dialog.current?.close();
  }, []);
  return (
    <dialog
      ref={dialog}
      aria-label={props.title}
      onClose={props.onClose}
      onClick={(event) => event.target === dialog.current && dialog.current?.close()}
    >
      <div class="dialog">
        <h2>{props.title}</h2>
        {props.children}
      </div>
    </dialog>
  );
}
