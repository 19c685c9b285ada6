using System.CommandLine;
using Ledger.Hosting;

// Longer than anything a stopping node waits for, so that it is never cut short.
return await Verbs.Root(Console.Out, Console.Error).Parse(args)
    .InvokeAsync(new InvocationConfiguration { ProcessTerminationTimeout = TimeSpan.FromSeconds(30) });
