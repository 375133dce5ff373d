// Numbers and names as people read them.

export function money(micros, currency) {
  const digits = Math.abs(micros) >= 1_000_000 || micros === 0 ? 2 : 4;
  return new Intl.NumberFormat("en", {
    style: "currency", currency, minimumFractionDigits: 2, maximumFractionDigits: digits,
  }).format(micros / 1_000_000);
}

export const count = (number) => new Intl.NumberFormat("en").format(number);

export const percent = (share) =>
  `${new Intl.NumberFormat("en", { maximumSignificantDigits: 3 }).format(share * 100)} %`;

export const clock = (moment) => new Date(moment).toLocaleTimeString("en-GB");

export function words(identifier) {
  const text = String(identifier).replaceAll("_", " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

export function ago(minutes) {
  return minutes < 60 ? `${minutes} min ago` : `${Math.floor(minutes / 60)} h ago`;
}

export function span(seconds) {
  const units = [[86_400, "day"], [3_600, "hour"], [60, "minute"]];
  const [size, name] = units.find(([unit]) => seconds >= unit && seconds % unit === 0) ?? [1, "second"];
  return seconds === size ? name : `${seconds / size} ${name}s`;
}

export function initials(name) {
  const parts = name.split(/\s+/).filter((part) => /^\p{L}/u.test(part));
  return parts.slice(0, 2).map((part) => part[0]).join("").toUpperCase();
}

export function hueOf(name) {
  return [...name].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 360, 7);
}
