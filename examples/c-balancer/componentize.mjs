// Turns a core module into a component: node componentize.mjs MODULE WIT COMPONENT
import { readFile, writeFile } from 'node:fs/promises';
import { componentEmbed, componentNew } from '@bytecodealliance/jco-transpile/wasm-tools';

const [module, wit, component] = process.argv.slice(2);
const binary = await readFile(module);
const witSource = await readFile(wit, 'utf8');
const described = await componentEmbed({ binary, witSource, world: 'balancer' });
await writeFile(component, await componentNew(described, []));
