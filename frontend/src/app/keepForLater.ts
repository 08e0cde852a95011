/** Keeps the page and its engine in this browser, for the time without a network; not where bytes are dear. */
export function keepForLater(base: string): void {
  const { connection, serviceWorker } = navigator as Navigator & { connection?: { saveData?: boolean } }
  if (connection?.saveData) return
  // Undefined where the page did not come over https or from this machine.
  void (serviceWorker as ServiceWorkerContainer | undefined)?.register(`${base}serviceWorker.js`).catch(() => undefined)
}
