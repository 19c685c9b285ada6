using System.CommandLine;
using Ledger.DemoGateway;

var urls = new Option<string>("--urls") { Description = "Where to listen, separated by semicolons; port 0: any that is free.", DefaultValueFactory = _ => "http://127.0.0.1:8090" };
var journal = new Option<string?>("--journal")
{
    Description = "A file that what is received is written to, a line each, before it is answered, and read from at the start. Without it, all is forgotten when the gateway stops.",
};
var faults = new Option<string?>("--faults") { Description = "Faults to begin with, as JSON, such as '{\"errorPercent\":30,\"hangPercent\":5}'." };

var root = new RootCommand(
    $$"""
    A gateway for messages as campaigns call it, to try them against. It sends nothing: it records what it receives, and
    does wrong what it is told to.

      POST   …/send/{id}        { "id", "phone", "text" } with Authorization: Bearer <token>; answers { "code", "message" }, code 0: accepted
      GET    /faults            what it does wrong
      PUT    /faults            another set of faults, from now on
      GET    /received          what it received, as NDJSON, in order
      GET    /received/summary  the same in numbers
      DELETE /received          forget it
      GET    /health            200

    Whoever reaches it may use all but /send. It listens on loopback unless told otherwise.

    The token comes from the environment: {{GatewayServer.TokenVariable}}. Without one, any will do.

    Faults, all 0 unless set. What happens to a message depends on nothing but the seed, its id and how often it came:

    {{Faults.Help}}
    """)
{
    urls, journal, faults,
};
root.SetAction(async (parsed, cancellation) =>
{
    if (!Faults.TryRead(parsed.GetValue(faults) ?? "{}", out var read, out var wrong))
    {
        await Console.Error.WriteLineAsync($"--faults: {wrong}");
        return 1;
    }

    await using var received = Received.Open(parsed.GetValue(journal));
    await using var server = new GatewayServer(Environment.GetEnvironmentVariable(GatewayServer.TokenVariable), received) { Faults = read };
    foreach (var address in await server.Start(parsed.GetValue(urls)!, cancellation))
    {
        await Console.Out.WriteLineAsync($"Gateway listens on {address}");
    }

    await server.WaitForShutdown(cancellation);
    return 0;
});
return await root.Parse(args).InvokeAsync();
