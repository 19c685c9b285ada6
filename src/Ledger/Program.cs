Console.WriteLine("Ledger");
