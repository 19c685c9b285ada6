using System.Runtime.CompilerServices;

namespace Ledger.Http;

/// <summary>Answers lists: a page as JSON, or all of it as NDJSON or CSV, by what the caller accepts.</summary>
public static class ListAnswers
{
    /// <summary>
    /// Reads a page from <paramref name="fetch"/>, which gets the key to begin after (null at first) and how many rows to read,
    /// and returns each row with its key. An export reads on from key to key, page by page, so it holds no connection and no
    /// snapshot while a slow caller reads; rows that change meanwhile are seen as they are when their page is read.
    /// </summary>
    public static async Task<IResult> Answer<TItem, TKey>(
        HttpContext http, PageQuery page, string kind, string?[] filter, CsvTable<TItem> csv,
        Func<TKey?, int, Task<IReadOnlyList<(TItem Item, TKey Key)>>> fetch)
        where TKey : notnull
    {
        if (!Lists.TryRead<TKey>(page, kind, filter, out var list, out var rejection) || !Formats.TryNegotiate(http.Request, out var format, out rejection))
        {
            return Problems.For(rejection);
        }

        if (format != ListFormat.Json)
        {
            return Formats.Stream(format, All(fetch, list.After, http.RequestAborted), csv);
        }

        var asked = list.Page(await fetch(list.After, list.Fetch), r => r.Key);
        return Results.Ok(new Page<TItem>([.. asked.Items.Select(r => r.Item)], asked.NextCursor));
    }

    private static async IAsyncEnumerable<TItem> All<TItem, TKey>(
        Func<TKey?, int, Task<IReadOnlyList<(TItem Item, TKey Key)>>> fetch, TKey? after, [EnumeratorCancellation] CancellationToken cancellation)
        where TKey : notnull
    {
        IReadOnlyList<(TItem Item, TKey Key)> rows;
        do
        {
            cancellation.ThrowIfCancellationRequested();
            rows = await fetch(after, Lists.MaxLimit);
            foreach (var (item, key) in rows)
            {
                yield return item;
                after = key;
            }
        }
        while (rows.Count == Lists.MaxLimit);
    }
}
