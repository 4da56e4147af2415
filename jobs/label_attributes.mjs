// Teacher labels for jobs/train_attributes.py: P(male) and age of the largest face of each JPEG in a folder, by the
// age and gender network of @vladmandic/face-api (MIT), averaged over the picture and its mirror image.
// Used while developing only; nothing of it runs in the job, and no weight of it is in the repository.
//
//   npm install --no-save @vladmandic/face-api@1.7.15 @tensorflow/tfjs@4.22.0 @tensorflow/tfjs-backend-wasm@4.22.0 jpeg-js@0.4.4
//   node label_attributes.mjs FOLDER labels.csv
//
// Run it where those packages were installed. A picture without a face gets no line. Output: file,sex_probability,age (years).
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';

const require = createRequire(path.join(process.cwd(), 'package.json'));
const tf = require('@tensorflow/tfjs');
const wasm = require('@tensorflow/tfjs-backend-wasm');
const faceapi = require('@vladmandic/face-api/dist/face-api.node-wasm.js');
const jpeg = require('jpeg-js');

const folderOf = (file) => path.dirname(require.resolve(file)) + path.sep;

async function load() {
  wasm.setWasmPaths(folderOf('@tensorflow/tfjs-backend-wasm/dist/tfjs-backend-wasm.wasm'));
  await tf.setBackend('wasm');
  await tf.ready();
  const models = path.join(folderOf('@vladmandic/face-api/package.json'), 'model');
  for (const net of [faceapi.nets.tinyFaceDetector, faceapi.nets.faceLandmark68Net, faceapi.nets.ageGenderNet]) {
    await net.loadFromDisk(models);
  }
}

async function label(picture) {
  const options = new faceapi.TinyFaceDetectorOptions({ inputSize: 320, scoreThreshold: 0.3 });
  const face = await faceapi.detectSingleFace(picture, options).withFaceLandmarks().withAgeAndGender();
  if (!face) return null;
  const male = face.gender === 'male' ? face.genderProbability : 1 - face.genderProbability;
  return { male, age: face.age };
}

async function labelBoth(bytes) {
  const { width, height, data } = jpeg.decode(bytes, { useTArray: true, formatAsRGBA: false });
  const picture = tf.tensor3d(data, [height, width, 3], 'int32');
  const mirrored = tf.reverse(picture, 1);
  const views = [await label(picture), await label(mirrored)].filter(Boolean);
  tf.dispose([picture, mirrored]);
  const mean = (name) => views.reduce((sum, view) => sum + view[name], 0) / views.length;
  return views.length ? { male: mean('male'), age: mean('age') } : null;
}

async function main([folder, output]) {
  if (!output) throw new Error('usage: node label_attributes.mjs FOLDER labels.csv');
  await load();
  const files = fs.readdirSync(folder).filter((file) => file.endsWith('.jpg')).sort();
  const rows = ['file,sex_probability,age'];
  for (const [index, file] of files.entries()) {
    const found = await labelBoth(fs.readFileSync(path.join(folder, file)));
    if (found) rows.push(`${file},${found.male.toFixed(6)},${found.age.toFixed(3)}`);
    if ((index + 1) % 100 === 0) console.error(`${index + 1} of ${files.length}`);
  }
  fs.writeFileSync(output, rows.join('\n') + '\n');
  console.error(`${rows.length - 1} of ${files.length} pictures labelled`);
}

await main(process.argv.slice(2));
