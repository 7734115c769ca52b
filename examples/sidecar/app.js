const http = require("node:http")

http.createServer((request, response) => {
  let order = ""
  request.on("data", (chunk) => (order += chunk))
  request.on("end", () => {
    console.log("got", order)
    response.writeHead(204).end()
  })
}).listen(8080, "127.0.0.1")
