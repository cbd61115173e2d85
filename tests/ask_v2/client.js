// Asks with the official client what it is told to on standard input; prints what it got.

const { readFileSync } = require('fs')
const { NotifyClient } = require('notifications-node-client')

async function ask (base, question) {
  const client = new NotifyClient(base, question.key)
  try {
    const answer = await client[question.call](...question.args)
    return { answer: answer.data }
  } catch (error) {
    if (!error.response) throw error
    return { status: error.response.status, message: error.response.data.message ?? error.response.data.errors }
  }
}

async function main () {
  const told = JSON.parse(readFileSync(0))
  const answers = []
  for (const question of told.questions) answers.push(await ask(told.base, question))
  process.stdout.write(JSON.stringify(answers))
}

main()
