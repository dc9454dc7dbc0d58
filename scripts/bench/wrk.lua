-- Prints what wrk measured as one line of JSON, exactly, where wrk's own report rounds. Latencies are microseconds.
-- There is no request() and no response() here on purpose: either would run Lua for each request.
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "seconds": %.6f, "p50_us": %.2f, "p99_us": %.2f, "max_us": %.2f, ' ..
    '"status_errors": %d, "socket_errors": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99), latency.max,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
