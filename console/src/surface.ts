/** The surface of a mask as a mesh, by surface nets: one vertex in every cell of eight voxels that the surface cuts. */

export interface Surface {
  points: Float32Array;
  triangles: Uint32Array;
}

type Triple = [number, number, number];

const RELAXATIONS = 3;
const REACH = 0.45; // of a voxel: how far a vertex may move from where the net has put it

/** The surface around the voxels with this label. Points are in mm by the affine, rows first. */
export function surface(voxels: ArrayLike<number>, size: Triple, label: number, affine: number[][]): Surface {
  const [nx, ny] = size;
  const box = bounds(voxels, size, label);
  const inside = (x: number, y: number, z: number) =>
    x >= 0 && y >= 0 && z >= 0 && x < nx && y < ny && z < size[2] && voxels[x + nx * (y + ny * z)] === label;
  const name = (x: number, y: number, z: number) => x + 1 + (nx + 1) * (y + 1 + (ny + 1) * (z + 1));
  const vertices = new Map<number, number>();
  const net: Triple[] = [];
  const quads: number[][] = [];
  if (box) {
    walk(box, 1, (x, y, z) => {
      const corner = crossing(inside, x, y, z);
      if (corner) vertices.set(name(x, y, z), net.push(corner) - 1);
    });
    const cell = (x: number, y: number, z: number) => vertices.get(name(x, y, z)) ?? 0;
    walk(box, 1, (x, y, z) => {
      const here = inside(x, y, z);
      const face = (there: boolean, ring: number[]) => {
        if (here !== there) quads.push(here ? ring : ring.reverse());
      };
      face(inside(x + 1, y, z), [cell(x, y, z), cell(x, y - 1, z), cell(x, y - 1, z - 1), cell(x, y, z - 1)].reverse());
      face(inside(x, y + 1, z), [cell(x, y, z), cell(x, y, z - 1), cell(x - 1, y, z - 1), cell(x - 1, y, z)].reverse());
      face(inside(x, y, z + 1), [cell(x, y, z), cell(x - 1, y, z), cell(x - 1, y - 1, z), cell(x, y - 1, z)].reverse());
    });
  }
  const points = relaxed(net, quads).map((point) => affine.slice(0, 3).map((row) => applied(row, point)));
  const triangles = quads.flatMap(([a = 0, b = 0, c = 0, d = 0]) => [a, b, c, a, c, d]);
  return { points: Float32Array.from(points.flat()), triangles: Uint32Array.from(triangles) };
}

/** One coordinate in mm: a row of an affine with a place in voxels. */
export function applied(row: number[], [x, y, z]: Triple): number {
  return (row[0] ?? 0) * x + (row[1] ?? 0) * y + (row[2] ?? 0) * z + (row[3] ?? 0);
}

/** The lowest and the highest voxel with this label on each axis; null where there is none. */
function bounds(voxels: ArrayLike<number>, [nx, ny]: Triple, label: number): [Triple, Triple] | null {
  const low: Triple = [Infinity, Infinity, Infinity];
  const high: Triple = [-1, -1, -1];
  for (let i = 0; i < voxels.length; i++) {
    if (voxels[i] !== label) continue;
    const at: Triple = [i % nx, Math.floor(i / nx) % ny, Math.floor(i / (nx * ny))];
    for (const axis of [0, 1, 2] as const) {
      low[axis] = Math.min(low[axis], at[axis]);
      high[axis] = Math.max(high[axis], at[axis]);
    }
  }
  return high[0] < 0 ? null : [low, high];
}

function walk([low, high]: [Triple, Triple], before: number, visit: (x: number, y: number, z: number) => void): void {
  for (let z = low[2] - before; z <= high[2]; z++)
    for (let y = low[1] - before; y <= high[1]; y++) for (let x = low[0] - before; x <= high[0]; x++) visit(x, y, z);
}

const EDGES: [Triple, Triple][] = [];
for (const axis of [0, 1, 2] as const)
  for (const [u, v] of [[0, 0], [0, 1], [1, 0], [1, 1]] as const) {
    const from: Triple = [0, 0, 0];
    from[((axis + 1) % 3) as 0 | 1 | 2] = u;
    from[((axis + 2) % 3) as 0 | 1 | 2] = v;
    const to: Triple = [...from];
    to[axis] = 1;
    EDGES.push([from, to]);
  }

/** The middle of where the surface cuts the edges of a cell; null where it cuts none. */
function crossing(inside: (x: number, y: number, z: number) => boolean, x: number, y: number, z: number): Triple | null {
  let [sx, sy, sz, count] = [0, 0, 0, 0];
  for (const [a, b] of EDGES) {
    if (inside(x + a[0], y + a[1], z + a[2]) === inside(x + b[0], y + b[1], z + b[2])) continue;
    sx += (a[0] + b[0]) / 2;
    sy += (a[1] + b[1]) / 2;
    sz += (a[2] + b[2]) / 2;
    count++;
  }
  return count ? [x + sx / count, y + sy / count, z + sz / count] : null;
}

/** The net without its steps: every vertex a little towards the middle of its neighbours, and never far. */
function relaxed(net: Triple[], quads: number[][]): Triple[] {
  let now = net;
  for (let round = 0; round < RELAXATIONS; round++) {
    const sums = net.map((): [number, number, number, number] => [0, 0, 0, 0]);
    for (const quad of quads)
      quad.forEach((vertex, i) => {
        const next = quad[(i + 1) % 4] ?? 0;
        for (const [one, other] of [[vertex, next], [next, vertex]] as const) {
          const sum = sums[one]!;
          const at = now[other]!;
          sum[0] += at[0];
          sum[1] += at[1];
          sum[2] += at[2];
          sum[3]++;
        }
      });
    now = net.map((start, i) => {
      const sum = sums[i]!;
      return start.map((from, axis) => {
        const middle = (now[i]![axis]! + sum[axis]! / (sum[3] || 1)) / 2;
        return Math.min(Math.max(middle, from - REACH), from + REACH);
      }) as Triple;
    });
  }
  return now;
}
