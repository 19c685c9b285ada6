using Ledger.Hosting;

return await Verbs.Root(Console.Out, Console.Error).Parse(args).InvokeAsync();
