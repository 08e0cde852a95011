/** Between a number and its unit, "rank" or 批量 and its number, and before a dot between two facts. */
const PARTED = /(?<=[\d}]) (?=(?:[kKMGT]i?B|TFLOP|[mµ]?s|min|h|nats)\b)|(?<=\brank|批量) (?=[{\d])|(?<=\}) (?=· \{)/g

/** Spaces at which no line must end become such. For texts that are written by hand, or come from the API. */
export const joined = (text: string): string => text.replace(PARTED, '\u00a0')
