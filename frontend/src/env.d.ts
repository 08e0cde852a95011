declare const __LORALENS_VERSION__: string
/** The address of the project's repository, where the build knows one. */
declare const __LORALENS_REPOSITORY__: string | null
/** Whether the page is built to stand alone, without a server. */
declare const __LORALENS_ALONE__: boolean

declare module 'virtual:engine' {
  /** Names of the engine's files beside this script; none while developing. */
  export const FILES: { pyodide: string; library: string; code: string; packages: string } | null
  /** Questions (method, path and body in one text) and the files with their answers. */
  export const ANSWERS: Record<string, string>
}

declare module 'virtual:lessons' {
  const lessons: { path: string; text: string; html: string }[]
  export default lessons
}

declare module 'virtual:messages/*' {
  interface Messages {
    [key: string]: string | Messages
  }
  const messages: Messages
  export default messages
}

declare module 'virtual:default-plans' {
  /** The request of the page at its defaults, and what the API answered to it. */
  const answer: { body: Record<string, unknown>; plans: unknown[] }
  export default answer
}
