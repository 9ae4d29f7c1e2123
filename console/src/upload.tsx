/** Scans that are dropped onto the page, or chosen: sent with a bar that shows how far they are. */

import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { authorization, getJson, problemOf, type Problem } from "./api";
import { go } from "./route";
import type { Job, Model } from "./types";
import { Dialog, Notice } from "./widgets";

const NIFTI = /\.nii(\.gz)?$/i;

interface Sending {
  title: string;
  share: number;
  job?: string;
  problem?: string;
}

export function Upload(): JSX.Element {
  const [files, setFiles] = useState<File[] | null>(null);
  const [over, setOver] = useState(false);
  const chooser = useRef<HTMLInputElement>(null);
  useEffect(() => {
    const stop = new AbortController();
    const options = { signal: stop.signal };
    addEventListener("dragover", (event) => (event.preventDefault(), setOver(true)), options);
    addEventListener("dragleave", (event) => event.relatedTarget === null && setOver(false), options);
    addEventListener(
      "drop",
      (event) => {
        event.preventDefault();
        setOver(false);
        void dropped(event.dataTransfer).then((found) => found.length && setFiles(found));
      },
      options,
    );
    return () => stop.abort();
  }, []);
  return (
    <>
      <button type="button" class="primary" onClick={() => chooser.current?.click()}>
        Add scans
      </button>
      <input
        ref={chooser}
        type="file"
        multiple
        hidden
        aria-label="Scans"
        onChange={(event) => {
          const chosen = [...(event.currentTarget.files ?? [])];
          event.currentTarget.value = "";
          if (chosen.length) setFiles(chosen);
        }}
      />
      {over && <div class="dropzone">Drop NIfTI files, a zip or a DICOM folder</div>}
      {files && <UploadDialog files={files} onClose={() => setFiles(null)} />}
    </>
  );
}

function UploadDialog({ files, onClose }: { files: File[]; onClose: () => void }): JSX.Element {
  const [models, setModels] = useState<string[]>([]);
  const [model, setModel] = useState("");
  const [urgent, setUrgent] = useState(false);
  const [sending, setSending] = useState<Sending[] | null>(null);
  const [problem, setProblem] = useState<Problem | null>(null);
  const groups = grouped(files);
  useEffect(() => {
    getJson<{ models: Model[] }>("/models").then((page) => {
      setModels(page.models.map((one) => one.name));
      setModel(page.models[0]?.name ?? "");
    }, setProblem);
  }, []);
  const send = async (event: Event) => {
    event.preventDefault();
    const rows: Sending[] = groups.map((group) => ({ title: titleOf(group), share: 0 }));
    setSending([...rows]);
    for (const [number, group] of groups.entries()) {
      const change = (row: Partial<Sending>) => {
        rows[number] = { ...(rows[number] as Sending), ...row };
        setSending([...rows]);
      };
      try {
        change({ job: (await post(group, model, urgent, (share) => change({ share }))).id, share: 1 });
      } catch (error) {
        change({ problem: (error as Problem).message });
      }
    }
    const first = rows[0];
    if (rows.every((row) => row.job)) {
      onClose();
      go(rows.length === 1 ? `#/jobs/${first?.job}` : "#/");
    }
  };
  return (
    <Dialog title={groups.length === 1 ? `Segment ${titleOf(groups[0] ?? [])}` : `Segment ${groups.length} scans`} onClose={onClose}>
      {problem && <Notice>{problem.message}</Notice>}
      {sending ? (
        <ul class="sending">
          {sending.map((row) => (
            <li key={row.title}>
              {row.title}
              <progress value={row.share} max={1} aria-label={`Upload of ${row.title}`} />
              {row.problem && <Notice>{row.problem}</Notice>}
            </li>
          ))}
        </ul>
      ) : (
        <form onSubmit={(event) => void send(event)}>
          <label>
            Model
            <select value={model} onChange={(event) => setModel(event.currentTarget.value)}>
              {models.map((name) => (
                <option key={name}>{name}</option>
              ))}
            </select>
          </label>
          <label class="check">
            <input type="checkbox" checked={urgent} onChange={() => setUrgent(!urgent)} /> Urgent
          </label>
          <button type="submit" class="primary" disabled={!model}>
            Send
          </button>
        </form>
      )}
    </Dialog>
  );
}

/** Every NIfTI file and every zip is a scan; the files of anything else are one DICOM series together. */
function grouped(files: File[]): File[][] {
  const alone = files.filter((file) => NIFTI.test(file.name) || /\.zip$/i.test(file.name));
  const series = files.filter((file) => !alone.includes(file));
  return [...alone.map((file) => [file]), ...(series.length ? [series] : [])];
}

function titleOf(group: File[]): string {
  return group.length === 1 ? (group[0]?.name ?? "") : `${group.length} files`;
}

/** Sent by XMLHttpRequest, which tells how many bytes have gone; fetch does not. */
function post(files: File[], model: string, urgent: boolean, onShare: (share: number) => void): Promise<Job> {
  const form = new FormData();
  form.append("model", model);
  if (urgent) form.append("priority", "urgent");
  for (const file of files) form.append("scan", file, file.name);
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", "/segment");
    for (const [name, value] of Object.entries(authorization())) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => event.lengthComputable && onShare(event.loaded / event.total);
    request.onerror = () => reject(problemOf(0, ""));
    request.onload = () =>
      request.status < 300
        ? resolve(JSON.parse(request.responseText) as Job)
        : reject(problemOf(request.status, request.responseText));
    request.send(form);
  });
}

/** Files of a drop, those within folders as well. */
async function dropped(transfer: DataTransfer | null): Promise<File[]> {
  const items = [...(transfer?.items ?? [])].filter((item) => item.kind === "file");
  const found = items.map((item) => {
    const entry = item.webkitGetAsEntry(); // a file that a program made is none of a file system's
    const file = item.getAsFile();
    return entry ? within(entry) : Promise.resolve(file ? [file] : []);
  });
  return (await Promise.all(found)).flat();
}

async function within(entry: FileSystemEntry): Promise<File[]> {
  if (entry.isFile) return [await new Promise<File>((done, fail) => (entry as FileSystemFileEntry).file(done, fail))];
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  const entries: FileSystemEntry[] = [];
  for (;;) {
    const some = await new Promise<FileSystemEntry[]>((done, fail) => reader.readEntries(done, fail));
    if (!some.length) break;
    entries.push(...some); // a reader gives a hundred at a time
  }
  return (await Promise.all(entries.map(within))).flat();
}
