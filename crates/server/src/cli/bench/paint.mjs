// When a browser with an empty cache first shows something. `told`, from the bench, is before this: base, key, times, overview.
import { createRequire } from "node:module";

const [modules, executablePath] = process.argv.slice(2);
const { chromium } = createRequire(modules + "/")("playwright-core");
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-dev-shm-usage"] });

// The first paint, and what has come over the wire until nothing more comes.
async function seen(page) {
  await page.waitForLoadState("load");
  await page.waitForFunction(() => performance.getEntriesByName("first-contentful-paint").length > 0);
  return page.evaluate(() => ({
    ms: performance.getEntriesByName("first-contentful-paint")[0].startTime,
    bytes: performance.getEntries().reduce((sum, entry) => sum + (entry.transferSize || 0), 0),
  }));
}

const found = { signIn: [], overview: [] };
for (let round = 0; round < told.times; round += 1) {
  const first = await browser.newContext();
  const page = await first.newPage();
  await page.goto(`${told.base}/sign-in`);
  found.signIn.push(await seen(page));
  await page.locator("input[name=key]").fill(told.key);
  await page.locator("form[action='/sign-in'] button, main form button").first().click();
  await page.waitForURL(/\/o\//);
  // The same session with nothing in the cache.
  const second = await browser.newContext({ storageState: await first.storageState() });
  const other = await second.newPage();
  await other.goto(told.base + told.overview);
  found.overview.push(await seen(other));
  await first.close();
  await second.close();
}
await browser.close();
const summary = (all) => {
  const ms = all.map((one) => one.ms).sort((a, b) => a - b);
  return { p50: ms[Math.floor((ms.length - 1) / 2)], p95: ms[Math.floor((ms.length - 1) * 0.95)], bytes: Math.max(...all.map((one) => one.bytes)) };
};
process.stdout.write(JSON.stringify({ signIn: summary(found.signIn), overview: summary(found.overview) }));
