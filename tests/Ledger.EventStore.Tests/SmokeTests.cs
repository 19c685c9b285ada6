namespace Ledger.EventStore.Tests; public class SmokeTests { [Fact] public void One() => Assert.True(true); }
