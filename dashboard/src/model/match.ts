/** Letters in this order, the nearer together the better; minus infinity where they are not all there. */
export function score(name: string, letters: string): number {
  const [low, wanted] = [name.toLowerCase(), letters.toLowerCase()];
  const whole = low.indexOf(wanted);
  if (whole >= 0) return 1000 - whole - name.length / 100;
  let at = -1;
  let gaps = 0;
  for (const letter of wanted) {
    const next = low.indexOf(letter, at + 1);
    if (next < 0) return Number.NEGATIVE_INFINITY;
    gaps += next - at - 1;
    at = next;
  }
  return 500 - gaps;
}
