// node python.mjs ROOT SCRIPT [ARGUMENT…]: run a script of this project with the CPython that is compiled for Node.
// The script sees ROOT under the path /project; what it prints goes where this process prints.
import { loadPyodide } from 'pyodide';
import { writeSync } from 'node:fs';

const [root, script, ...rest] = process.argv.slice(2);
const lines = (handle) => ({ batched: (line) => writeSync(handle, `${line}\n`) });
const python = await loadPyodide({ stdout: lines(1).batched, stderr: lines(2).batched });
python.mountNodeFS('/project', root);
python.globals.set('arguments', python.toPy([`/project/${script}`, ...rest]));
await python.runPythonAsync('import runpy, sys; sys.argv = list(arguments); runpy.run_path(sys.argv[0], run_name="__main__")');
