// Vectors and matrices. `rotation` (3×3, rows) is the server's: it turns the object's frame into the camera's, in which
// x points right, y up and z at the viewer.

export const turned = (rotation, point) => rotation.map((row) => row[0] * point[0] + row[1] * point[1] + row[2] * point[2]);

export const product = (a, b) =>
  a.map((row) => [0, 1, 2].map((column) => row[0] * b[0][column] + row[1] * b[1][column] + row[2] * b[2][column]));

export const about = {
  x: (angle) => [
    [1, 0, 0],
    [0, Math.cos(angle), -Math.sin(angle)],
    [0, Math.sin(angle), Math.cos(angle)],
  ],
  y: (angle) => [
    [Math.cos(angle), 0, Math.sin(angle)],
    [0, 1, 0],
    [-Math.sin(angle), 0, Math.cos(angle)],
  ],
};

/** Where a point of the camera's frame lands in a picture: `scale` pixels a unit at its centre, seen from `distance`. */
export function projected([x, y, z], center, scale, distance) {
  const near = distance / (distance - z);
  return [center[0] + scale * near * x, center[1] - scale * near * y];
}

/** a·f + b·l + c·u for vectors f, l, u: a point given along an object's own front, left and up. */
export const along = ([f, l, u], [a, b, c]) => [0, 1, 2].map((i) => a * f[i] + b * l[i] + c * u[i]);
