/** The engine that a page carries beside the server: which of their answers differ by a byte? */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { BUILT } from './dumb.mjs'
import { questions } from './questions.mjs'

/** `page`: one of a page without a server, at `alone`. Gives the questions whose answers are not the same. */
export async function differing(page, alone, server, count) {
  const { models } = await (await fetch(`${server}/api/models`)).json()
  const asked = questions(
    count,
    models.map((model) => model.id),
  )
  const chunk = readdirSync(join(BUILT, 'assets')).find((name) => /^engine-(?!worker).*\.js$/.test(name))
  const own = await page.evaluate(
    async ([address, list]) => {
      const { ask } = await import(address)
      const answers = []
      for (const [path, body] of list) answers.push(await ask('POST', path, body))
      return answers
    },
    [`${alone}/assets/${chunk}`, asked],
  )
  const different = []
  for (const [index, [path, body]] of asked.entries()) {
    const { status, text } = await served(server + path, body)
    if (status !== own[index].status || text !== own[index].text) different.push(`${path} ${body}`)
  }
  return different
}

/** The server's answer. A busy one says 429, or 503 after its deadline; the engine has none, so it is asked again. */
async function served(address, body) {
  for (;;) {
    const answer = await fetch(address, { method: 'POST', headers: { 'content-type': 'application/json' }, body })
    if (answer.status !== 429 && answer.status !== 503) return { status: answer.status, text: await answer.text() }
  }
}
