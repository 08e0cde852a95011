/** The CPython that is compiled to WebAssembly, run in Node while the page is built. */
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { loadPyodide } from 'pyodide'

const require = createRequire(import.meta.url)
export const FOLDER = dirname(require.resolve('pyodide/package.json'))
export const VERSION = (JSON.parse(readFileSync(join(FOLDER, 'package.json'), 'utf8')) as { version: string }).version
/** The packages that it could install: none, for this very version. */
export const NO_PACKAGES = JSON.stringify({
  info: (JSON.parse(readFileSync(join(FOLDER, 'pyodide-lock.json'), 'utf8')) as { info: unknown }).info,
  packages: {},
})
/** What the browser's copy consists of, beside the standard library. */
export const FILES = ['pyodide.mjs', 'pyodide.asm.mjs', 'pyodide.asm.wasm'] as const

/**
 * Modules of the standard library that no computation can reach: servers, mail, terminals, debuggers, other encodings.
 * `everything` imports all of the engine without them.
 */
const UNUSED = String.raw`(_pyrepl|antigravity|argparse|bdb|cProfile|cmd\.py|code\.py|ctypes|curses|dbm|doctest|email|encodings/(big5|cp(?!437)|euc|gb|hp|hz|iso|johab|koi|kz|mac|palmos|ptcp|shift|tis)|ensurepip|ftplib|gettext|getopt|http/(client|cookie|server)|idlelib|imaplib|lib2to3|logging/(config|handlers)|mailbox|multiprocessing|netrc|optparse|pdb|pickletools|plistlib|poplib|profile|profiling|pstats|pydoc|smtplib|socketserver|sqlite3|sysconfig|tarfile|test|this|tkinter|trace\.py|tracemalloc|turtle|unittest|venv|webbrowser|wsgiref|xml|zoneinfo)`

/** The standard library as the browser loads it: compiled, so that it need not be compiled at each start. */
const COMPILE = `
import importlib.util, re, zipfile
from importlib._bootstrap_external import _code_to_hash_pyc
def compiled(source, target):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for item in old.infolist():
            if item.is_dir() or re.match(UNUSED, item.filename):
                continue
            name, data = item.filename, old.read(item)
            if name.endswith(".py"):
                code = compile(data, "/lib/" + name, "exec", dont_inherit=True, optimize=2)
                name, data = name + "c", _code_to_hash_pyc(code, importlib.util.source_hash(data), False)
            new.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED, 9)
`

export async function standardLibrary(): Promise<Uint8Array> {
  const python = await loadPyodide()
  python.FS.writeFile('/old.zip', readFileSync(join(FOLDER, 'python_stdlib.zip')))
  python.runPython(`UNUSED = r"${UNUSED}"\n${COMPILE}\ncompiled("/old.zip", "/new.zip")`)
  return python.FS.readFile('/new.zip') as Uint8Array
}

/** Imports every module of the engine, and answers each question with the very functions that the browser will run. */
export async function answers(
  library: string,
  files: ReadonlyMap<string, Uint8Array>,
  questions: readonly (readonly [string, string, string])[],
): Promise<string[]> {
  const python = await loadPyodide({ stdLibURL: library })
  for (const [name, content] of files) {
    python.FS.mkdirTree(dirname(`/engine/${name}`))
    python.FS.writeFile(`/engine/${name}`, content)
  }
  const wheels = [...files.keys()].filter((name) => name.endsWith('.whl')).map((name) => `/engine/${name}`)
  python.runPython(`import sys; sys.path[:0] = ${JSON.stringify(['/engine', ...wheels])}`)
  const modules = [...files.keys()].filter((name) => name.endsWith('.py'))
  for (const name of modules) python.pyimport(name.replace(/(\/__init__)?\.py$/, '').replaceAll('/', '.'))
  const ask = python.pyimport('loralens.endpoints.ask').ask as (...question: string[]) => { toJs: () => unknown }
  return questions.map((question) => {
    const [status, text] = ask(...question).toJs() as [number, string]
    if (status !== 200) throw new Error(`${question.join(' ')}: ${status} ${text}`)
    return text
  })
}
