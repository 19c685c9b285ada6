# Calls for POST /v1/usage, one a line, of TIMESTAMP,ContextTokens,GeneratedTokens.
BEGIN { FS = "," }
NR > 1 {
  sub(/\r$/, "")
  split($1, time, " ")
  share = NR * 0.6180339887
  user = int(exp(log(1000) * (share - int(share))))
  printf "{\"id\":\"%d\",\"source\":\"azure-conv\",\"userId\":\"user-%d\",\"serviceId\":\"azure-conv\",", NR - 1, user
  printf "\"occurredAt\":\"%sT%sZ\",\"quantities\":{\"inputToken\":%d,\"outputToken\":%d}}\n", time[1], time[2], $2, $3
}
