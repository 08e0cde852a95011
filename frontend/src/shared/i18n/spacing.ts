/**
 * Chinese text with a space between Han and Latin letters or digits, also where a value was put into a sentence; a number
 * stays on the line of what it counts.
 */
export function spaced(text: string): string {
  return text
    .replace(/[\u4e00-\u9fff](?=[A-Za-z0-9])|[A-Za-z%](?=[\u4e00-\u9fff])/g, '$& ')
    .replace(/(\d) ?(?=[\u4e00-\u9fff])/g, '$1\u00a0')
    .replace(/([\u4e00-\u9fff])[ \u00a0](?=[\u4e00-\u9fff])/g, '$1')
}
