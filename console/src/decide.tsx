/** What people decided, and the form to add to it. */

import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { getJson, sendJson, type Problem } from "./api";
import { moment } from "./format";
import { useKeys } from "./keys";
import type { Decision, Job, Review } from "./types";
import { decisionWord, Icon, Notice } from "./widgets";

const NAME = "ncagate-reviewer";

export function Decide({ job, onChange }: { job: Job; onChange: () => void }): JSX.Element {
  const [reviews, setReviews] = useState<Review[]>([]);
  const [comment, setComment] = useState("");
  const [reviewer, setReviewer] = useState(sessionStorage.getItem(NAME) ?? "");
  const [problem, setProblem] = useState<Problem | null>(null);
  const [sending, setSending] = useState(false);
  const field = useRef<HTMLTextAreaElement>(null);
  const path = `/jobs/${job.id}/reviews`;
  const read = () => getJson<{ reviews: Review[] }>(path).then((page) => setReviews(page.reviews), setProblem);
  useEffect(() => void read(), []);
  const send = async (decision: Decision) => {
    if (sending || (decision === "comment" && !comment.trim())) return;
    setSending(true);
    setProblem(null);
    try {
      await sendJson("POST", path, { decision, comment: comment.trim(), reviewer: reviewer.trim() });
      setComment("");
      await read();
      onChange();
    } catch (error) {
      setProblem(error as Problem);
    }
    setSending(false);
  };
  useKeys({
    c: () => void send("confirm"),
    r: () => void send("reject"),
    "/": () => field.current?.focus(),
  });
  const standing = [...reviews].reverse().find((one) => one.decision !== "comment");
  return (
    <section class="decide" aria-label="Decision">
      <div class="row">
        <button type="button" class="primary" aria-pressed={standing?.decision === "confirm"} disabled={sending} onClick={() => void send("confirm")}>
          <Icon name="accept" /> Confirm <kbd>c</kbd>
        </button>
        <button type="button" aria-pressed={standing?.decision === "reject"} disabled={sending} onClick={() => void send("reject")}>
          <Icon name="stop" /> Reject <kbd>r</kbd>
        </button>
        <input
          class="initials"
          aria-label="Your name or initials"
          placeholder="Initials"
          maxLength={64}
          value={reviewer}
          onInput={(event) => {
            setReviewer(event.currentTarget.value);
            sessionStorage.setItem(NAME, event.currentTarget.value);
          }}
        />
      </div>
      <div class="row">
        <textarea
          ref={field}
          rows={2}
          aria-label="Comment"
          placeholder="Comment  /   (goes with the decision, or alone)"
          maxLength={4000}
          value={comment}
          onInput={(event) => setComment(event.currentTarget.value)}
        />
        <button type="button" disabled={sending || !comment.trim()} onClick={() => void send("comment")}>
          Comment
        </button>
      </div>
      {problem && <Notice>{problem.message}</Notice>}
      {reviews.length > 0 && (
        <ol class="reviews" aria-label="Reviews" aria-live="polite">
          {reviews.map((one) => (
            <li key={one.id}>
              <strong>{decisionWord(one.decision)}</strong> by {one.reviewer || one.client}, {moment(one.at)}
              {one.comment && <p>{one.comment}</p>}
            </li>
          ))}
        </ol>
      )}
    </section>
  );
}
