using System.IO.Enumeration;
using Causeway.Driver;
using Causeway.Linux;

namespace Causeway.Cli.Client;

/// <summary>What <c>causeway find</c> shows.</summary>
/// <param name="Pattern">Names with * and ?; null for all.</param>
/// <param name="Type">f, d or l; null for all.</param>
internal readonly record struct FindFilter(string? Pattern, string? Type)
{
    public bool Matches(string name, FileKind kind) =>
        (Pattern is null || FileSystemName.MatchesSimpleExpression(Pattern, name, ignoreCase: false))
        && Type switch
        {
            "f" => kind == FileKind.File,
            "d" => kind == FileKind.Directory,
            "l" => kind == FileKind.SymbolicLink,
            _ => true,
        };
}

/// <summary><c>causeway find</c>.</summary>
internal static class FindCommand
{
    // Deeper than any tree that a path can name: a daemon that lies could show one without end.
    private const int MaxDepth = 2048;

    public static async Task RunAsync(
        SharePath start, FindFilter filter, Output output, CancellationToken cancellationToken)
    {
        VirtioFsClient client = await ClientCommands.ConnectAsync(start, CacheMode.Always, cancellationToken)
            .ConfigureAwait(false);
        await using (client.ConfigureAwait(false))
        {
            FileStatus status = await client.GetStatusAsync(start.Path, LinkHandling.NoFollow, cancellationToken)
                .ConfigureAwait(false);
            Print(start, status, filter, output);
            if (status.Kind != FileKind.Directory)
            {
                return;
            }

            // Depth first, without a call per level.
            var pending = new Stack<(SharePath Place, int Depth)>();
            pending.Push((start, 0));
            while (pending.TryPop(out (SharePath Place, int Depth) next))
            {
                if (next.Depth > MaxDepth)
                {
                    throw new VirtioFsException(Errno.ELOOP, "find", next.Place.Path);
                }

                await foreach (DirectoryItem item in client.EnumerateAsync(next.Place.Path, cancellationToken)
                    .ConfigureAwait(false))
                {
                    SharePath place = next.Place.Below(item.Name);
                    FileStatus found = item.Status ?? await client.GetStatusAsync(
                        place.Path, LinkHandling.NoFollow, cancellationToken).ConfigureAwait(false);
                    Print(place, found, filter, output);
                    if (found.Kind == FileKind.Directory)
                    {
                        pending.Push((place, next.Depth + 1));
                    }
                }
            }
        }
    }

    private static void Print(SharePath place, FileStatus status, FindFilter filter, Output output)
    {
        if (!filter.Matches(place.Path[(place.Path.LastIndexOf('/') + 1)..], status.Kind))
        {
            return;
        }

        if (output == Output.Json)
        {
            Display.Json(writer => writer.WriteStatus("path", place.Path, status));
        }
        else
        {
            Console.WriteLine(Display.Name(place.Path));
        }
    }
}
