/** A text whose names of tensors, files and keys end a line at their dots, underscores and slashes, never within a word. What is copied stays as it is written. */
import { h, type FunctionalComponent } from 'vue'

/** After a mark that joins two words of a name; a dot between digits is a number's. */
const BREAK = /(?<=[\w*\]](?:[_/]|(?<!\d)\.|\.(?!\d)))(?=[\w*])/

export const cut = (text: string): string[] => text.split(BREAK)

export const NameText: FunctionalComponent<{ text: string }> = ({ text }) =>
  cut(text).flatMap((piece, place) => (place === 0 ? [piece] : [h('wbr'), piece]))
NameText.props = ['text']
