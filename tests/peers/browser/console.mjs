// The console in a real browser, as a newcomer uses it: signs in, makes a webhook, tries it, looks at the code of a
// receiver, makes what a campaign needs, runs an execution by the call that the page shows, sees the event come, breaks
// the receiver, finds out why a delivery fails, mends it and has it retried.
//
//   node console.mjs MODULES CHROMIUM '{"base": …, "key": …, "receiver": …, "language": …, "theme": …, "width": …, "shots": …}'
//
// MODULES is the folder with node_modules. The receiver answers with the status that the header x-answer names, or that the
// last request with the header x-from-now-on named. Prints one line of JSON for each thing seen; ends with a message and exit code 1 where something is not as it should be. With
// "shots" it keeps a picture of each page in that folder.
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { request } from "node:https";
import { createRequire } from "node:module";
import { resolve } from "node:path";

const [modules, executablePath, settings] = process.argv.slice(2);
const { base, key, receiver, language, theme, width, shots } = JSON.parse(settings);
const require = createRequire(resolve(modules) + "/");
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const words = {
  en: { submit: "Submit", test: "Send test event", create: "Create feedback webhook", took: "The endpoint took the test event", not: "The endpoint did not take", succeeded: "Succeeded", key: "API key", signIn: "Sign in" },
  it: { submit: "Invia", test: "Invia evento di prova", create: "Crea webhook feedback", took: "L'endpoint ha accettato", not: "L'endpoint non ha accettato", succeeded: "Riuscita", key: "Chiave API", signIn: "Accedi" },
}[language];

function tell(what) {
  process.stdout.write(JSON.stringify(what) + "\n");
}

function must(is, what) {
  if (!is) throw new Error(what);
}

const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-dev-shm-usage"] });
const context = await browser.newContext({
  locale: language === "it" ? "it-IT" : "en-US", colorScheme: theme, viewport: { width, height: width < 500 ? 844 : 900 }, reducedMotion: "reduce",
});
const first = await context.newPage();
const page = first;
page.setDefaultTimeout(60000);
page.on("console", (message) => { if (message.type() === "error" && !/Failed to load resource/.test(message.text())) tell({ consoleError: message.text() }); });
context.on("dialog", (dialog) => { tell({ violation: "script", help: `something that somebody wrote was run: ${dialog.message()}` }); dialog.dismiss(); });
page.on("pageerror", (error) => tell({ pageError: String(error) }));

// Breaks the receiver, or mends it.
function answerFromNowOn(status) {
  return new Promise((resolve, reject) => {
    const call = request(receiver, { method: "POST", headers: { "x-from-now-on": status }, rejectUnauthorized: false }, (answer) => {
      answer.resume();
      answer.on("end", resolve);
    });
    call.on("error", reject);
    call.end();
  });
}

// Loads a page again until it shows something: what happens in the server is not announced to every page.
async function until(path, locator) {
  for (let round = 0; round < 100; round += 1) {
    await page.goto(path);
    if (await page.locator(locator).count() > 0) return;
  }
  throw new Error(`${path} never showed ${locator}`);
}

// A page as it stands: nothing wrong by the rules of accessibility, nothing wider than the window, a picture.
async function look(name, page = first) {
  await page.evaluate(axe);
  const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  for (const violation of found.violations) {
    tell({ page: name, violation: violation.id, help: violation.help, nodes: violation.nodes.slice(0, 3).map((node) => node.html.slice(0, 200)) });
  }
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  if (overflow > 0) tell({ page: name, violation: "overflow", help: `${overflow} pixels wider than the window` });
  if (shots) await page.screenshot({ path: `${shots}/${name}-${language}-${theme}-${width}.png`, fullPage: true });
  tell({ page: name, url: page.url() });
}

try {
  await page.goto(base + "/");
  // With the page to sign in on, which brings what all pages share.
  const bytes = () => page.evaluate(() => performance.getEntries().reduce((sum, entry) => sum + (entry.transferSize || 0), 0));
  const brought = await bytes();
  const paint = await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime);
  must(brought > 5000, "the first load was measured");
  await look("sign-in");
  await page.getByLabel(words.key).fill(key);
  await page.getByRole("button", { name: words.signIn }).click();
  await page.waitForLoadState("networkidle");
  tell({ transferred: brought + await bytes(), firstContentfulPaintMs: paint });
  await look("overview-first");
  await page.locator("ol.steps a").first().click();
  await look("webhooks-empty");
  await page.getByRole("link", { name: words.create }).first().click();
  await look("webhook-new");
  must(!(await page.locator("input[name=issuer]").isVisible()), "the fields of a token are not shown without one");

  // Wrong at first: the form says what, and keeps what was typed.
  await page.locator("input[name=name]").fill("Order outcomes");
  await page.locator("input[name=url]").fill("http://hooks.acme.example/outcomes");
  await page.locator("input[name=auth][value=jwt]").check();
  await page.locator("input[name=issuer]").fill("esito");
  await page.locator("input[name=audience]").fill("acme-hooks");
  // Long enough that it is retried by hand alone.
  await page.locator("input[name=first-delay]").fill("3600");
  await page.locator("input[name=header-name-0]").fill("X-Env");
  await page.locator("input[name=header-value-0]").fill("prod");
  await page.getByRole("button", { name: words.submit, exact: true }).click();
  await page.locator("#fault-url").waitFor();
  must(await page.locator("input[name=issuer]").inputValue() === "esito", "what was typed stays");
  await look("webhook-faults");

  await page.locator("input[name=url]").fill(receiver);
  await page.getByRole("button", { name: words.submit, exact: true }).click();
  await page.locator("#signing-secret").waitFor();
  must((await page.locator("#signing-secret").textContent()).startsWith("whsec_"), "the secret is shown once");
  await look("webhook-created");
  await page.getByRole("button", { name: words.test }).click();
  await page.getByText(words.took).waitFor();
  await look("webhook-tested");

  // Broken, seen, mended.
  await page.locator("input[name=header-name-1]").fill("X-Answer");
  await page.locator("input[name=header-value-1]").fill("503");
  await page.getByRole("button", { name: words.submit, exact: true }).click();
  await page.getByRole("button", { name: words.test }).click();
  await page.getByText(words.not).waitFor();
  must(await page.getByText("503").first().isVisible(), "the status is shown");
  await look("webhook-refused");
  await page.locator("button[name=remove][value='1']").click();
  must(await page.locator("input[name=header-value-0]").inputValue() === "prod", "the other header stays");
  await page.getByRole("button", { name: words.submit, exact: true }).click();
  await page.getByRole("button", { name: words.test }).click();
  await page.getByText(words.took).waitFor();

  // The code of a receiver for it.
  const webhook = page.url().replace(/\/test$/, "");
  await page.locator("a[href$='/receiver']").click();
  await look("receiver");
  must((await page.locator("#receiver").textContent()).includes("algorithms=[\"ES256\"]"), "the code is for this webhook");
  await page.locator("button[data-copy=receiver]").waitFor();
  await page.locator("a[href='?language=rust']").click();
  await look("receiver-rust");
  must((await page.locator("#receiver").textContent()).includes("Algorithm::ES256"), "in another language too");
  await page.goto(webhook);

  // What a campaign needs.
  const sandbox = page.url().replace(/\/webhooks.*/, "");
  await page.goto(`${sandbox}/channels/new`);
  await look("channel-new");
  await page.locator("input[name=name]").fill("Simulator");
  await page.locator("input[name=channel][value=email]").check();
  await page.locator("input[name=type][value=simulator]").check();
  await page.locator(".submit button").click();
  await page.getByRole("link", { name: "Simulator", exact: true }).waitFor();
  await page.goto(`${sandbox}/campaigns/new`);
  await look("campaign-new");
  await page.locator("input[name=name]").fill("Order confirmation");
  await page.locator("select[name=channel]").selectOption({ index: 1 });
  await page.locator("input[name=subject]").fill("Your order {{context.order}}");
  await page.locator("textarea[name=html]").fill("<p>Hello {{profile.person.name.firstName}}, your order {{context.order}} is on its way.</p>");
  must(await page.locator("input[name=webhooks]").isChecked(), "webhooks are enabled unless somebody wants it otherwise");
  await page.locator(".submit button").click();
  await page.locator("form[action$='/activate'] button").click();
  await page.locator("#call").waitFor();
  await look("campaign-live");
  const call = await page.locator("#call").textContent();

  await page.goto(page.url().replace(/\/activate$/, "/versions"));
  await page.locator("section code").first().waitFor();
  await look("campaign-versions");

  // An execution by the call that is shown, and its event in the live view.
  const live = await context.newPage();
  await live.goto(`${sandbox}/live`);
  await live.locator("#live-state.good").waitFor();
  const run = (shown) => execFileSync("sh", ["-c", shown], { env: { ...process.env, ESITO_API_KEY: key }, stdio: ["ignore", "pipe", "pipe"] }).toString();
  must(/HUMA-/.test(run(call)), "the call that is shown runs an execution");
  await live.locator("tr.fresh", { hasText: "order-1" }).first().waitFor();
  await look("live", live);
  await live.locator("#live-pause").click();
  await live.locator("#live-state.warn").waitFor();
  await live.close();

  // The receiver breaks: which delivery fails, and why.
  await answerFromNowOn("503");
  run(call.replace("order-1", "order-2"));
  await until(`${sandbox}/deliveries?state=failing`, "tbody a");
  await look("deliveries-failing");
  await page.locator("tbody a").first().click();
  await page.locator("ol.line").waitFor();
  must(await page.locator("ol.line td code", { hasText: "503" }).first().isVisible(), "what the endpoint answered is shown");
  must(await page.getByText("maintenance until noon").count() > 0, "and what it said");
  // What was opened stays open when the page renews itself, which it does not do under somebody's hand.
  await page.locator("td details summary").first().click();
  await page.evaluate(() => new Promise((done) => {
    document.addEventListener("htmx:afterSwap", done, { once: true });
    document.activeElement.blur();
  }));
  must(await page.getByText("maintenance until noon").first().isVisible(), "what was opened stays open");
  await look("message-failing");

  // It is mended, and the delivery retried by hand.
  await answerFromNowOn("200");
  const failing = page.url();
  await page.locator("form[action$='/retry'] button").click();
  await until(failing, "li .tag.good:text-is('" + words.succeeded + "')");
  await look("message-succeeded");

  // All of it once more.
  await page.goto(`${sandbox}/replays/new`);
  await look("replay-new");
  await page.locator("input[name=everything]").check();
  await page.locator("main form button.primary").click();
  await page.locator("progress").waitFor();
  await look("replay");

  // What has become of it all: the charts are drawn.
  await until(`${sandbox}/overview?window=1h`, ".chart canvas");
  must(await page.locator(".chart canvas").count() === 3, "three charts");
  await look("overview-hour");

  // By keyboard alone: the first key leads past the navigation.
  await page.goto(base + "/");
  await page.keyboard.press("Tab");
  must(await page.evaluate(() => document.activeElement.classList.contains("skip")), "the first key leads to the content");
  await look("webhooks");
  // The rest of the navigation; the links come from the page, as a visitor finds them.
  const links = await page.locator(".side nav a").evaluateAll((all) => all.map((link) => link.getAttribute("href")));
  must(links.length >= 6, "the navigation has its pages");
  for (const link of links) {
    await page.goto(base + link);
    await look(link.split("/").pop());
  }
  await page.goto(`${sandbox}/executions?requestId=order-2`);
  await page.locator("tbody a").first().click();
  await look("execution");
  await page.goto(`${sandbox}/messages?recipient=late-bounce%2B2%40simulator.esito.test`);
  await page.locator("tbody a").first().click();
  await page.locator("ol.line").waitFor();
  await look("message");
  tell({ done: true });
} catch (error) {
  if (shots) await page.screenshot({ path: `${shots}/failed-${language}-${theme}-${width}.png`, fullPage: true }).catch(() => {});
  process.stderr.write(`${error.message}\nat ${page.url()}\n`);
  process.exitCode = 1;
} finally {
  await browser.close();
}
