declare module 'virtual:lessons' {
  const lessons: { path: string; text: string; html: string }[]
  export default lessons
}
