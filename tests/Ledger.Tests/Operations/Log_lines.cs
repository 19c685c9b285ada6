using Ledger.Hosting;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;

namespace Ledger.Tests.Operations;

public sealed class Log_lines
{
    [Fact]
    public void are_one_for_each_entry_whatever_is_in_it()
    {
        var output = new StringWriter { NewLine = "\n" };
        KeyValuePair<string, object?>[] values = [new("User Id", "u\r\n1"), new("Count", 7), new("Nothing", null), new("{OriginalFormat}", "{User} left")];
        var entry = new LogEntry<KeyValuePair<string, object?>[]>(
            LogLevel.Warning, "Ledger.Some", default, values, new InvalidOperationException("first\nsecond"), (_, _) => "u\r\n1 left\nlevel=error \"x\"");

        new LogLine().Write(entry, null, output);

        var line = output.ToString();
        Assert.Equal(line.Length - 1, line.IndexOf('\n', StringComparison.Ordinal));
        Assert.DoesNotContain('\r', line);
        Assert.Matches(@"^time=\d{4}-\d\d-\d\dT\S+Z level=warn msg=", line);
        Assert.Contains(
            """ msg="u\r\n1 left\nlevel=error \"x\"" logger=Ledger.Some User_Id="u\r\n1" Count=7 Nothing="" """,
            line,
            StringComparison.Ordinal);
        Assert.Contains("""exception="System.InvalidOperationException: first\nsecond""", line, StringComparison.Ordinal);
    }
}
