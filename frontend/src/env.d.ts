declare const __LORALENS_VERSION__: string

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
